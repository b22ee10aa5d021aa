"""Tracing a generation of every family: pictures unchanged, rows, steps and words where they belong."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_pipelines
import torch
from PIL import Image
from tiny_pipelines import PIPELINES, paint
from typer.testing import CliRunner

from refdiff_lite.attention import record_attention
from refdiff_lite.networks.families import attention_modules
from refdiff_lite.networks.words import model_of
from refdiff_lite.record import Record
from refdiff_lite.trace import trace

PROMPT, OTHER, NEGATIVE = "a dog left of a cat", "two red trucks", "blurry dog"
every = pytest.mark.parametrize("name", PIPELINES)
ORDER = (
    dict.fromkeys(PIPELINES, "-+") | dict.fromkeys(("flux", "flux2", "qwen", "lumina2"), "calls") | {"z_image": "+-"}
)
"""Of the empty and the given prompt in a guided batch, as the pipelines' sources have it."""


@pytest.fixture(scope="module")
def pipes():
    """Each pipeline once, with the arguments of its call."""
    made = {}

    def get(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = PIPELINES[name]()
        return made[name]

    return get


def refused(name):
    """Arguments of a negative prompt; Klein has only the empty one."""
    return {} if name == "flux2" else {"negative_prompt": NEGATIVE}


def same(a, b):
    return torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def calls_of(pipe, call, *args, **more):
    """Arguments of every call of the model in one generation, without tracing."""
    model, seen = model_of(pipe), []
    signature = __import__("inspect").signature(type(model).forward)
    handle = model.register_forward_pre_hook(
        lambda m, a, k: seen.append(dict(signature.bind(m, *a, **k).arguments)), with_kwargs=True
    )
    paint(pipe, call, *args, **more)
    handle.remove()
    return seen


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


@pytest.mark.parametrize("padding", ["right", "left"])
@every
def test_the_keys_of_a_word_are_those_of_its_own_tokens(pipes, name, padding, monkeypatch):
    """Text encoders that give each token's number instead of its state: so the model's own call tells what stands where."""
    pipe, call = pipes(name)
    if padding == "left":  # as some language models' tokenizers have it
        if name not in ("flux2", "qwen", "z_image"):
            pytest.skip("its tokenizers pad on the right")
        monkeypatch.setattr(pipe.tokenizer, "padding_side", "left")
    handles = []

    def number(module, args, kwargs, output):
        ids = args[0] if args else kwargs["input_ids"]
        for key, value in output.items():
            if isinstance(value, tuple):
                output[key] = tuple(ids[..., None].expand(v.shape).to(v) if v.ndim == 3 else v for v in value)
            elif isinstance(value, torch.Tensor) and value.ndim == 3:
                output[key] = ids[..., None].expand(value.shape).to(value)
        return output

    for part in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        if getattr(pipe, part, None) is not None:
            handles.append(getattr(pipe, part).register_forward_hook(number, with_kwargs=True))
    try:
        calls = calls_of(pipe, call, PROMPT, **refused(name))
        with trace(pipe, negative=True) as record:
            paint(pipe, call, PROMPT, **refused(name))
    finally:
        [h.remove() for h in handles]
    order = ORDER[name]
    for negative in (False, True) if refused(name) else (False,):
        first = calls[int(negative) if order == "calls" else 0]
        rows = first.get("encoder_hidden_states", first.get("cap_feats"))
        numbers = rows[0 if order == "calls" else order.index("-" if negative else "+")][:, 0]
        for word in ("dog", "blurry") if negative else ("dog", "left", "cat", "left of a cat"):
            found = record.keys(word, negative=negative)
            assert found.keys() == ({"clip", "t5"} if name == "sd3" else {record.prompts[0][0].encoder})
            for encoder, keys in found.items():
                suffix = {"t5": {"sd3": "_3", "flux": "_2"}.get(name, "")}.get(encoder, "")
                tokenizer = getattr(pipe, f"tokenizer{suffix}")
                spelt = tokenizer.decode([int(numbers[k]) for k in keys])
                assert spelt.replace(" ", "") == word.replace(" ", "")


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


def test_pieces_of_a_word_and_the_encoders_that_read_it(pipes):
    pipe, call = pipes("sd3")
    with trace(pipe) as record:
        paint(pipe, call, PROMPT)
    keys = record.keys("dog")
    assert len(keys["t5"]) > 1
    layers = [record.maps["+", layer, -1][0] for layer in record.layers]
    t5 = torch.stack([m[..., keys["t5"]] for m in layers]).mean(0)
    for pieces, truth in (("mean", t5.mean(-1)), ("sum", t5.sum(-1)), ("last", t5[..., -1])):
        found = record.scores_of("dog", pieces=pieces, encoder="t5")
        np.testing.assert_allclose(found, truth.numpy(), atol=1e-6)
    clip = record.scores_of("dog", encoder="clip")
    np.testing.assert_allclose(record.scores_of("dog"), (clip + t5.mean(-1).numpy()) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="encoder='llm': choose one of clip, t5"):
        record.keys("dog", encoder="llm")
    with pytest.raises(ValueError, match="pieces='first'"):
        record.scores_of("dog", pieces="first")


def test_words_that_come_twice_within_others_or_behind_the_limit(pipes):
    pipe, call = pipes("sd1")
    text = "a Dog and a hotdog and a dog " + "very " * 9 + "fast"
    with trace(pipe) as record:
        paint(pipe, call, text)
    first, second = record.keys("dog")["clip"], record.keys("dog", nth=1)["clip"]
    assert first == [2]
    assert second[0] > first[0] + 3
    with pytest.raises(ValueError, match="'dog' is not 3 times in"):
        record.keys("dog", nth=2)
    with pytest.raises(ValueError, match="behind the last token"):
        record.keys("fast")
    with pytest.raises(ValueError, match="'ho' is not in"):
        record.keys("ho")


def test_a_textual_inversion_of_several_vectors_is_one_word():
    torch.manual_seed(0)
    pipe, call = tiny_pipelines.sd1()
    pipe.load_textual_inversion({"<toy>": torch.randn(3, 12)}, token="<toy>")
    with trace(pipe) as record:
        paint(pipe, call, "a <toy> and a cat")
    assert record.keys("<toy>") == {"clip": [2, 3, 4]}
    assert record.keys("and")["clip"][0] == 5
    plain = pipe.tokenizer("a <toy> <toy>_1 <toy>_2 and a cat").input_ids
    assert [pipe.tokenizer.decode(plain[k]).strip() for k in record.keys("cat")["clip"]][-1].endswith("t")


def test_embeddings_without_a_prompt_are_traced_but_have_no_words(pipes):
    pipe, call = pipes("sd1")
    embeds = torch.randn(2, 16, 12, generator=torch.Generator().manual_seed(0))
    with trace(pipe) as record:
        paint(pipe, call, None, prompt_embeds=embeds, negative_prompt_embeds=embeds * 0)
    assert len(next(iter(record.maps.values()))) == 2
    with pytest.raises(ValueError, match="no prompt is known"):
        record.keys("dog", 0)


def test_an_encoder_that_read_something_else_is_an_error(pipes, monkeypatch):
    pipe, call = pipes("qwen")
    monkeypatch.setattr(pipe, "_get_qwen_prompt_embeds", lambda prompt, *a, **k: type(pipe)._get_qwen_prompt_embeds(
        pipe, ["a lazy fox"], *a, **k))  # fmt: skip
    with (
        pytest.raises(ValueError, match="llm encoder of QwenImagePipeline read other tokens than those of 'a dog left"),
        trace(pipe),
    ):
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


@pytest.fixture(scope="module")
def record():
    """A generation by the bundled networks, with its picture."""
    from refdiff_lite.networks import load

    pipe = load("toy").sd
    with trace(pipe, steps=[0, 2], negative=True) as record:
        pipe(
            PROMPT, negative_prompt=NEGATIVE, num_inference_steps=3, height=96, width=128, guidance_scale=4.0,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
    return record


def test_the_record_has_the_picture_and_maps_of_its_size(record):
    assert [p.shape for p in record.images] == [(96, 128, 3)]
    c = record.word_map("dog")
    assert (c.shape, c.dtype, c.min()) == ((96, 128), np.float32, 0)
    assert c.max() == pytest.approx(1, abs=1e-4)
    assert record.word_map("dog", size=(12, 16)).shape == (12, 16)
    assert not np.array_equal(record.word_map("dog", negative=True), c)
    assert repr(record) == "Record(UNet2DConditionModel, cross, 1 images, 3 steps, 7 layers)"


def test_a_record_is_kept_in_a_file(record, tmp_path):
    path = record.save(tmp_path / "dog.safetensors")
    again = Record.load(path)
    assert again.layers == record.layers
    assert again.prompts == record.prompts
    assert (again.timesteps, again.steps) == (record.timesteps, record.steps)
    assert all(torch.equal(again.maps[k], m) for k, m in record.maps.items())
    np.testing.assert_array_equal(again.images[0], record.images[0])
    np.testing.assert_array_equal(again.word_map("cat", step=2), record.word_map("cat", step=2))


@pytest.mark.parametrize("damage", ["cut", "other", "text"])
def test_a_file_that_is_no_record_is_named(record, tmp_path, damage):
    from safetensors.torch import save_file

    path = record.save(tmp_path / "r.safetensors")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "text":
        path.write_text("no record")
    else:
        save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"r\.safetensors"):
        Record.load(path)


def test_stills(record):
    assert len(record.plot().axes) == 1 + 5
    assert len(record.plot(["dog", "cat"], by="step").axes) == 2 * 2
    figure = record.plot(["dog"], by="layer")
    assert [ax.get_title() for ax in figure.axes] == [f'"dog" {n}' for n in record.layers]
    shown = figure.axes[0].images[-1].get_array()
    np.testing.assert_allclose(shown, record.word_map("dog", layer=record.layers[0]), atol=1e-6)


# The command line


def test_the_command_paints_and_writes_everything(tmp_path):
    from refdiff_lite.cli import app

    found = CliRunner().invoke(
        app,
        ["trace", PROMPT, "--negative", NEGATIVE, "--steps", "3", "--by-step", "--word", "dog", "--out", str(tmp_path)],
    )
    assert found.exit_code == 0, found.output
    names = ["explorer.html", "image.png", "record.safetensors", "steps.png", "word-0-dog.png", "words.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    record = Record.load(tmp_path / "record.safetensors")
    assert record.steps == [0, 1, 2]
    assert {sign for sign, _, _ in record.maps} == {"+", "-"}
    np.testing.assert_array_equal(record.images[0], np.asarray(Image.open(tmp_path / "image.png")))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--word", "zebra"], "'zebra' is not in the prompt"),
        (["--model", "/no/such/folder"], "/no/such/folder"),
        (["--dtype", "float8"], "choose bfloat16, float32 or float16"),
        (["--layers", "nothing"], "matches none of"),
        (["--out", "/proc/no"], "/proc/no"),
    ],
)
def test_wrong_input_costs_one_line(tmp_path, options, said):
    from refdiff_lite.cli import app

    found = CliRunner().invoke(app, ["trace", PROMPT, "--steps", "1", "--out", str(tmp_path), *options])
    assert found.exit_code == 2
    assert said in found.output.replace("\n", " ")
    assert "Traceback" not in found.output


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
