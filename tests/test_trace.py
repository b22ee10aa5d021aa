"""Tracing a generation of every family: pictures unchanged, rows, steps and words where they belong."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_pipelines
import torch
from PIL import Image
from tiny_pipelines import NEGATIVE, ORDER, OTHER, PIPELINES, PROMPT, calls_of, paint, refused

from refdiff_lite.attention import record_attention
from refdiff_lite.networks.families import attention_modules
from refdiff_lite.networks.words import model_of
from refdiff_lite.trace import trace

every = pytest.mark.parametrize("name", PIPELINES)


def same(a, b):
    return torch.equal(torch.as_tensor(a), torch.as_tensor(b))


@every
def test_no_bit_of_the_picture_changes_and_the_pipeline_comes_back(pipes, name):
    pipe, call = pipes(name)
    kind, plain = type(pipe), paint(pipe, call, PROMPT, **refused(name))
    hooks = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model_of(pipe).modules())
    with trace(pipe, negative=True) as record:
        assert same(paint(pipe, call, PROMPT, **refused(name)), plain)
    assert type(pipe) is kind
    assert sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model_of(pipe).modules()) == hooks
    assert len(record.timesteps) == 3
    assert {sign for sign, _, _ in record.maps} == {"+", "-"}
    last = list(attention_modules(model_of(pipe)).values())[-1]
    handle = last.register_forward_hook(lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError), trace(pipe):
        paint(pipe, call, PROMPT)
    handle.remove()
    assert same(paint(pipe, call, PROMPT, **refused(name)), plain)
    assert type(pipe) is kind


@every
def test_a_trace_is_the_mean_of_what_each_call_gives_alone(pipes, name):
    """Two prompts, two pictures each, guided; prompt and negative prompt each told apart from the other."""
    pipe, call = pipes(name)
    more = refused(name) and {"negative_prompt": [NEGATIVE, NEGATIVE]}
    if name == "lumina2":
        more |= {"negative_prompt": [NEGATIVE, "blurry"]}
    args = [PROMPT, OTHER], more | {"num_images_per_prompt": 2}
    calls = calls_of(pipe, call, args[0], **args[1])
    with trace(pipe, negative=True) as record:
        paint(pipe, call, args[0], **args[1])
    model, order = model_of(pipe), ORDER[name]
    sums = {"+": {}, "-": {}}
    for i, arguments in enumerate(calls):
        arguments.pop("self", None)
        with torch.no_grad(), record_attention(model) as alone:
            model(**arguments)
        for layer, m in alone.maps.items():
            halves = {"+-"[i % 2]: m} if order == "calls" else {order[0]: m[:4], order[1]: m[4:]}
            for sign, half in halves.items():
                sums[sign][layer] = sums[sign].get(layer, 0) + half
    for (sign, layer, step), m in record.maps.items():
        assert (step, len(m)) == (-1, 4)
        width = min(m.shape[-1], sums[sign][layer].shape[-1])
        torch.testing.assert_close(m[..., :width], sums[sign][layer][..., :width] / 3, atol=1e-6, rtol=1e-4)
    assert [texts[0].text for texts in record.prompts] == [PROMPT, PROMPT, OTHER, OTHER]
    with pytest.raises(ValueError, match="4 images were painted: say which"):
        record.word_map("dog")
    assert "trucks" in record.words(2)
    with pytest.raises(ValueError, match="'dog' is not in 'two red trucks'"):
        record.keys("dog", 3)
    assert not np.array_equal(record.scores_of("dog", 0), record.scores_of("dog", 1))


@every
def test_steps_heads_layers_and_words_are_chosen(pipes, name):
    pipe, call = pipes(name)
    with trace(pipe, steps="each", heads="each") as whole:
        paint(pipe, call, PROMPT)
    layer = whole.layers[-1]
    with trace(pipe, [layer], steps=[2], heads=[1], words=["cat"]) as part:
        paint(pipe, call, PROMPT)
    assert (part.layers, part.steps, part.heads) == ([layer], [2], [1])
    assert {s for s, _, _ in part.maps} == {"+"}
    expected = whole.scores_of("cat", step=2, layer=layer, head=1)
    np.testing.assert_allclose(part.scores_of("cat", head=1), expected, atol=1e-6)
    mean = np.mean([whole.scores_of("cat", step=s) for s in range(3)], axis=0)
    np.testing.assert_allclose(whole.scores_of("cat"), mean, atol=1e-6)
    for which, said in (
        (dict(step=1), "step=1 was not kept apart, only 2"),
        (dict(layer="x"), "layer='x' was not recorded; there are"),
        (dict(head=0), "head=0 was not recorded, only 1"),
    ):
        with pytest.raises(ValueError, match=said):
            part.scores_of("cat", **which)
    with pytest.raises(ValueError, match="the tokens of 'dog' were not recorded"):
        part.scores_of("dog")
    with pytest.raises(ValueError, match=r"steps=\[7\]: there were only 3 steps"), trace(pipe, steps=[1, 7]):
        paint(pipe, call, PROMPT)


# The batch, guidance and other users


def test_guidance_that_ends_midway(pipes):
    """From two rows a picture to one."""
    pipe, call = pipes("sd1")

    def stop(pipe, i, t, kwargs):
        if i == 0:
            pipe._guidance_scale = 0.0
            kwargs["prompt_embeds"] = kwargs["prompt_embeds"].chunk(2)[-1]
        return kwargs

    more = dict(callback_on_step_end=stop, callback_on_step_end_tensor_inputs=["prompt_embeds"])
    with trace(pipe, steps="each", negative=True) as record:
        paint(pipe, call, PROMPT, negative_prompt=NEGATIVE, **more)
    assert {s for sign, _, s in record.maps if sign == "+"} == {0, 1, 2}
    assert {s for sign, _, s in record.maps if sign == "-"} == {0}
    with trace(pipe, steps="each") as other:
        paint(pipe, call, PROMPT, negative_prompt=OTHER, **more)
    first = record.layers[0]
    torch.testing.assert_close(
        record.maps["+", first, 0], other.maps["+", first, 0]
    )  # the negative prompt is not in it


def test_a_sampler_that_asks_twice_at_one_timestep(pipes):
    from diffusers import PNDMScheduler

    pipe, call = tiny_pipelines.sd1()
    pipe.scheduler = PNDMScheduler(skip_prk_steps=True, steps_offset=1)
    with trace(pipe, steps="each") as record:
        paint(pipe, call, PROMPT)
    assert len(record.timesteps) == 4
    assert record.timesteps[1] == record.timesteps[2]
    first = record.layers[0]
    assert not torch.equal(record.maps["+", first, 1], record.maps["+", first, 2])


def test_guidance_by_more_than_a_negative_prompt_is_refused(pipes, monkeypatch):
    pipe, call = pipes("sd1")
    monkeypatch.setattr(pipe.scheduler, "scale_model_input", lambda x, t: x[:1].repeat(3, 1, 1, 1))
    monkeypatch.setattr(pipe, "encode_prompt", lambda *a, **k: (torch.zeros(2, 16, 12), torch.zeros(1, 16, 12)))
    with pytest.raises(ValueError, match="over 3 rows for 1 images"), trace(pipe):
        paint(pipe, call, PROMPT)


def test_one_block_one_generation(pipes):
    pipe, call = pipes("sd1")
    with trace(pipe):
        paint(pipe, call, PROMPT)
        with pytest.raises(ValueError, match="one trace records one generation"):
            paint(pipe, call, PROMPT)
    with pytest.raises(ValueError, match="nothing was painted"), trace(pipe):
        pass
    worker = threading.Thread(target=paint, args=(pipe, call, PROMPT))
    with pytest.raises(ValueError, match="another thread"), trace(pipe):
        worker.start(), worker.join()
    with pytest.raises(ValueError, match="neither a UNet nor a transformer"), trace(SimpleNamespace()):
        pass
    with pytest.raises(ValueError, match="max_bytes"), trace(pipe, max_bytes=1000):
        paint(pipe, call, PROMPT)


def test_two_traces_of_one_pipeline_in_two_threads(pipes):
    pipe, call = pipes("sd1")
    kind, records, gate = type(pipe), {}, threading.Barrier(2)
    alone = {}
    for prompt in (PROMPT, OTHER):
        with trace(pipe) as alone[prompt]:
            paint(pipe, call, prompt)
    lock = threading.Lock()  # the scheduler is one, so the generations go one after another

    def work(prompt):
        gate.wait()
        with trace(pipe) as records[prompt]:
            gate.wait()
            with lock:
                paint(pipe, call, prompt)
            gate.wait()

    threads = [threading.Thread(target=work, args=(p,)) for p in (PROMPT, OTHER)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert type(pipe) is kind
    for prompt, record in records.items():
        assert record.prompts[0][0].text == prompt
        for key, m in record.maps.items():
            torch.testing.assert_close(m, alone[prompt].maps[key])


def test_memory_does_not_grow_with_the_steps(pipes):
    pipe, call = pipes("flux")
    sizes = []
    for steps in (1, 4):
        with trace(pipe) as record, torch.no_grad():
            pipe("a dog", num_inference_steps=steps, output_type="latent", **call)
        sizes.append(sum(m.numel() for m in record.maps.values()))
        assert len(record.timesteps) == steps
    assert sizes[0] == sizes[1]


# The record


# The command line


# Pipelines of other shapes, and changed networks


@pytest.fixture
def toy():
    from refdiff_lite.networks import load

    return load("toy").sd


@pytest.mark.parametrize("name", ["Img2Img", "Inpaint", "ControlNet"])
def test_pictures_that_begin_with_a_picture(toy, name):
    import diffusers

    parts = {k: v for k, v in toy.components.items() if k != "image_encoder"}
    image, hole = Image.new("RGB", (128, 96), "gray"), Image.new("L", (128, 96), 255)
    more = dict(image=image, strength=0.6)
    if name == "Inpaint":
        more |= dict(mask_image=hole, height=96, width=128)
    if name == "ControlNet":
        net = diffusers.ControlNetModel.from_unet(toy.unet)
        parts, more = parts | dict(controlnet=net), dict(image=image)
    pipe = getattr(diffusers, f"StableDiffusion{name}Pipeline")(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)

    def run():
        generator = torch.Generator().manual_seed(0)
        return pipe(PROMPT, num_inference_steps=5, output_type="np", generator=generator, **more).images

    plain = run()
    with trace(pipe) as record:
        found = run()
    np.testing.assert_array_equal(found, plain)
    assert len(record.timesteps) == (5 if name == "ControlNet" else 3)
    assert record.word_map("dog").shape == (96, 128)


def test_a_changed_network_is_traced_as_it_is(pipes):
    """LoRA changes q and k; the maps follow."""
    pytest.importorskip("peft")
    from peft import LoraConfig

    pipe, call = tiny_pipelines.sd3()
    with trace(pipe) as before:
        paint(pipe, call, PROMPT)
    pipe.transformer.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_k"]))
    plain = paint(pipe, call, PROMPT)
    with trace(pipe) as record:
        assert same(paint(pipe, call, PROMPT), plain)
    assert not torch.allclose(
        record.maps["+", "transformer_blocks.0", -1], before.maps["+", "transformer_blocks.0", -1]
    )


@pytest.mark.parametrize("name", ["sd1", "flux"])
def test_weights_that_come_and_go_are_no_hindrance(pipes, name):
    from accelerate import cpu_offload

    pipe, call = PIPELINES[name]()
    with trace(pipe) as plain:
        paint(pipe, call, PROMPT)
    model = model_of(pipe)
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert next(model.parameters()).device.type == "meta"
    with trace(pipe) as record:
        paint(pipe, call, PROMPT)
    assert all(torch.equal(m, plain.maps[k]) for k, m in record.maps.items())


@pytest.mark.slow  # importing the compiler takes seconds
@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_transformer_runs_uncompiled_while_it_is_traced(in_place):
    pipe, call = tiny_pipelines.sd3()
    with trace(pipe) as plain:
        paint(pipe, call, PROMPT)
    if in_place:
        pipe.transformer.compile(backend="eager")
    else:
        pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    with trace(pipe) as record:
        paint(pipe, call, PROMPT)
    assert all(torch.equal(m, plain.maps[k]) for k, m in record.maps.items())


def test_slicing_and_old_processors_are_traced(pipes):
    pipe, call = tiny_pipelines.sd1()
    with trace(pipe) as plain:
        paint(pipe, call, PROMPT)
    pipe.enable_attention_slicing(1)
    with trace(pipe) as record:
        paint(pipe, call, PROMPT)
    for key, m in record.maps.items():
        torch.testing.assert_close(m, plain.maps[key], atol=1e-4, rtol=1e-3)


def test_half_precision_is_recorded_in_full(pipes):
    pipe, call = tiny_pipelines.sd3()
    pipe.to(torch.bfloat16)
    with trace(pipe) as record:
        paint(pipe, call, PROMPT)
    assert {m.dtype for m in record.maps.values()} == {torch.float32}
