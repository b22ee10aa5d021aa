"""One recorder for every family: what it records is what the model computed, and the model computes the same."""

import gc
import threading

import pytest
import tiny
import torch
from tiny import JOINT, MODELS

from refdiff_lite.attention import record_attention, run_for_attention, word_map
from refdiff_lite.networks import families, recorder, scores
from refdiff_lite.networks.families import attention_modules

KINDS = {"cross", "self", "reverse", "text", "output"}
every = pytest.mark.parametrize("name", MODELS)
joint = pytest.mark.parametrize("name", JOINT)


@pytest.fixture(scope="module")
def models():
    """Each model once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = MODELS[name]()
        return made[name]

    return get


def hooks(model):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def kinds_of(model):
    return families.family_of(model).modules


def whole(model, kind="cross"):
    """Probabilities of every query over every key, (B, heads, N, N), of each layer, times v; and what the module gave."""
    found = {}

    def keep(call, name, seen, layout):
        logits = torch.einsum("bhqd,bhkd->bhqk", seen.query, seen.key) * seen.scale
        if seen.mask is not None:
            logits = logits.masked_fill(~seen.mask, -torch.inf) if seen.mask.dtype == torch.bool else logits + seen.mask
        found[name] = logits.softmax(-1), logits, seen, layout

    with recorder.record(model.model, scores.Wanted(kind), "", keep):
        model()
    return found


@every
def test_no_bit_of_the_output_changes_and_nothing_stays_behind(models, name):
    model = models(name)
    plain, before = model(), hooks(model.model)
    for kind in kinds_of(model.model):
        with record_attention(model.model, kind=kind) as record:
            assert torch.equal(model(), plain)
        assert record.calls == 1
        assert hooks(model.model) == before


@every
def test_probabilities_times_v_are_the_modules_own_output(models, name):
    model, gave, handles = models(name), {}, []
    modules = attention_modules(model.model)
    for layer, module in modules.items():
        gave[layer] = []
        out = getattr(module, "to_out", None)  # the projection behind: its input is what the probabilities weigh
        out = out[0] if isinstance(out, torch.nn.ModuleList) else out
        if out is None:  # FLUX's single blocks project later
            hook = module.register_forward_hook(lambda m, args, got, to=gave[layer]: to.append(got))
        else:
            hook = out.register_forward_pre_hook(lambda m, args, to=gave[layer]: to.append(args[0]))
        handles.append(hook)
    found = whole(model)
    for h in handles:
        h.remove()
    assert found.keys() == modules.keys()
    for layer, (probabilities, _, seen, layout) in found.items():
        mixed = (probabilities @ seen.value).transpose(1, 2).flatten(2)
        (got,) = gave[layer]
        for row, place in enumerate(layout.queries):
            image = mixed[row, place.image]
            start = place.image.start if got.shape[1] == mixed.shape[1] else 0
            theirs = got[row, start : start + len(image), : image.shape[1]]  # FLUX.2 lays its MLP beside it
            torch.testing.assert_close(image, theirs, atol=1e-4, rtol=1e-4)


@every
def test_recorded_maps_are_the_parts_of_the_whole_matrix(models, name):
    model = models(name)
    h, w = model.grid
    for kind in kinds_of(model.model):
        with record_attention(model.model, kind=kind) as record:
            model()
        with record_attention(model.model, kind=kind, scores="logits") as logits:
            model()
        found = whole(model, kind)
        assert record.maps.keys() == found.keys()
        for layer, (probabilities, plain, _, layout) in found.items():
            for row, (asks, answers) in enumerate(zip(layout.queries, layout.keys, strict=True)):
                image, text = asks.image, answers.text
                if kind == "output":
                    continue
                if kind == "reverse":
                    part, raw = (x[row].mean(0)[asks.text, image].T for x in (probabilities, plain))
                elif kind == "text":
                    part, raw = (x[row].mean(0)[text, text] for x in (probabilities, plain))
                else:
                    keys = text if kind == "cross" else answers.image
                    part, raw = (x[row].mean(0)[image, keys] for x in (probabilities, plain))
                for maps, truth in ((record.maps[layer], part), (logits.maps[layer], raw)):
                    mine = maps[row] if kind == "text" else maps[row].flatten(0, 1)
                    mine = mine[: len(truth), : truth.shape[1]]
                    torch.testing.assert_close(mine, truth, atol=1e-5, rtol=1e-4)
                if kind in ("cross", "reverse", "text"):
                    assert (record.maps[layer][row, ..., model.words[row] :] == 0).all()
            if kind != "text" and not name.startswith("sd"):
                assert record.maps[layer].shape[-3:-1] == (h, w)


def test_masked_words_get_nothing(models):
    """PixArt, Sana and Qwen fill their texts up and mask what is filled in."""
    for name, lengths in (("pixart", (3, 6)), ("sana", (3, 6)), ("qwen", (3, 7))):
        with record_attention(models(name).model) as record:
            models(name)()
        for m in record.maps.values():
            for row, length in enumerate(lengths):
                assert (m[row, ..., length:] == 0).all()
                assert m[row, ..., :length].sum() > 0


@joint
def test_a_softmax_over_the_words_alone_is_taken_head_by_head(models, name):
    model = models(name)
    with record_attention(model.model, over="own") as record:
        model()
    for layer, (_, logits, _, layout) in whole(model).items():
        for row, place in enumerate(layout.keys):
            truth = logits[row][:, place.image][..., place.text].softmax(-1).mean(0)
            mine = record.maps[layer][row].flatten(0, 1)[:, : truth.shape[1]]
            torch.testing.assert_close(mine, truth, atol=1e-5, rtol=1e-4)


@joint
def test_output_is_the_product_of_what_pixels_and_words_got(models, name):
    model = models(name)
    with record_attention(model.model, kind="output", heads="each", tokens=[2, 0]) as record:
        model()
    for layer, (probabilities, _, seen, layout) in whole(model).items():
        mixed = probabilities @ seen.value
        for row, place in enumerate(layout.queries):
            truth = mixed[row][:, place.image] @ mixed[row][:, place.text].transpose(1, 2)[..., [2, 0]]
            mine = record.maps[layer][row].flatten(1, 2)
            torch.testing.assert_close(mine, truth, atol=1e-3 * truth.abs().max().item(), rtol=1e-4)


@every
def test_layers_heads_and_tokens_are_chosen_by_name(models, name):
    model = models(name)
    layer = list(attention_modules(model.model))[-1]
    with record_attention(model.model, heads="each") as all_of_it:
        model()
    count = all_of_it.maps[layer].shape[1]
    with record_attention(model.model, [layer], heads=[count - 1], tokens=[2, 0]) as some:
        model()
    assert list(some.maps) == [layer]
    torch.testing.assert_close(some.maps[layer], all_of_it.maps[layer][:, -1:][..., [2, 0]], atol=1e-6, rtol=1e-5)
    with (
        pytest.raises(ValueError, match=rf"heads=\[{count}\]: the layer has heads 0 to"),
        record_attention(model.model, heads=[count]),
    ):
        model()
    with pytest.raises(ValueError, match=r"tokens=\[99\]: the text has"), record_attention(model.model, tokens=[99]):
        model()
    with (
        pytest.raises(ValueError, match="no such layer matches none of"),
        record_attention(model.model, ["no such layer"]),
    ):
        pass


@every
def test_an_early_stop_records_the_same_and_leaves_out_the_rest(models, name):
    model = models(name)
    first = next(iter(attention_modules(model.model)))
    last, ran = list(attention_modules(model.model).values())[-1], []
    with record_attention(model.model, [first]) as full:
        model()
    handle = last.register_forward_pre_hook(lambda *a: ran.append(1))
    with record_attention(model.model, [first]) as part:
        run_for_attention(model.model, **model.inputs)
    handle.remove()
    assert not ran
    assert torch.equal(part.maps[first], full.maps[first])


def test_every_attention_module_has_a_name_of_its_own(models):
    """The real sizes, without weights."""
    import diffusers

    with torch.device("meta"):
        sdxl = diffusers.UNet2DConditionModel(
            block_out_channels=(320, 640, 1280), cross_attention_dim=2048, attention_head_dim=(5, 10, 20),
            transformer_layers_per_block=(1, 2, 10), addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816, use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        flux = diffusers.FluxTransformer2DModel()
        qwen = diffusers.QwenImageTransformer2DModel()
    assert len(attention_modules(sdxl)) == len(attention_modules(sdxl, "self")) == 70
    assert "mid_block.attentions.0.transformer_blocks.9" in attention_modules(sdxl)
    assert len(attention_modules(flux)) == 19 + 38
    assert "single_transformer_blocks.37" in attention_modules(flux)
    assert len(attention_modules(qwen)) == 60
    model = models("sdxl").model
    theirs = [m for n, m in model.named_modules() if n.endswith("attn2")]
    assert list(attention_modules(model).values()) == theirs
    assert len(theirs) == 11


def test_an_attention_of_the_image_alone_is_not_taken_for_cross_attention(models):
    model = models("sd35").model
    assert set(attention_modules(model)) == {f"transformer_blocks.{i}" for i in range(3)}
    assert {"transformer_blocks.0.attn2", "transformer_blocks.1.attn2"} < set(attention_modules(model, "self"))


def test_what_a_family_lacks_is_refused_with_its_reason(models):
    with (
        pytest.raises(ValueError, match="linear, without a softmax"),
        record_attention(models("sana").model, kind="self"),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"words are only keys.*choose cross or self"),
        record_attention(models("sd1").model, kind="text"),
    ):
        pass
    for wrong in (dict(kind="pixel"), dict(scores="probabilities"), dict(over="words"), dict(heads="all")):
        with pytest.raises(ValueError, match="choose"), record_attention(models("sd3").model, **wrong):
            pass


# Other ways of computing attention


def test_old_processors_are_computed_once_more(models):
    from diffusers.models.attention_processor import AttnProcessor

    for name in ("sd1", "pixart"):
        model = models(name)
        plain, processors = {}, model.model.attn_processors
        for kind in ("cross", "self"):
            with record_attention(model.model, kind=kind) as plain[kind]:
                model()
        for change in (lambda m: m.set_attn_processor(AttnProcessor()), lambda m: m.set_attention_slice(1)):
            if not hasattr(model.model, "set_attention_slice"):
                change = lambda m: m.set_attn_processor(AttnProcessor())  # noqa: E731
            change(model.model)
            out = model()
            for kind in ("cross", "self"):
                with record_attention(model.model, kind=kind) as record:
                    assert torch.equal(model(), out)
                for layer, m in record.maps.items():
                    torch.testing.assert_close(m, plain[kind].maps[layer], atol=1e-5, rtol=1e-4)
            model.model.set_attn_processor(dict(processors))


def test_attention_that_nobody_sees_is_named_and_nothing_stays_behind(models):
    from torch.nn.attention.flex_attention import flex_attention

    class Flex:
        _attention_backend = "flex"

        def __call__(self, attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb):
            q = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            return flex_attention(q, q, q).transpose(1, 2).flatten(2, 3)

    model = models("flux")
    before = hooks(model.model)
    module = attention_modules(model.model)["single_transformer_blocks.1"]
    theirs, module.processor = module.processor, Flex()
    try:
        with (
            pytest.raises(
                RuntimeError, match=r"single_transformer_blocks\.1 was not seen: Flex \(back end flex, diffusers "
            ),
            record_attention(model.model),
        ):
            model()
        with record_attention(model.model, "^transformer_blocks") as record:  # others may be recorded
            model()
        assert len(record.maps) == 2
    finally:
        module.processor = theirs
    assert hooks(model.model) == before
    with record_attention(model.model) as record:
        model()
    assert len(record.maps) == 5


def test_what_merges_tokens_or_cuts_the_batch_is_refused(models, monkeypatch):
    model = models("sd1")
    attn = attention_modules(model.model, "cross")["down_blocks.0.attentions.0"]
    forward = attn.forward
    monkeypatch.setattr(attn, "forward", lambda x, **kw: forward(x[:, ::4], **kw).repeat_interleave(4, 1))
    with (
        pytest.raises(ValueError, match="over 48 tokens where 192 were expected: token merging"),
        record_attention(model.model),
    ):
        model()
    monkeypatch.setattr(attn, "forward", lambda x, encoder_hidden_states, **kw: forward(
        x[:1], encoder_hidden_states=encoder_hidden_states[:1], **kw).repeat(2, 1, 1))  # fmt: skip
    with pytest.raises(ValueError, match="over 1 of the batch's 2 rows: perturbed"), record_attention(model.model):
        model()
    monkeypatch.undo()
    monkeypatch.setattr(model.model, "_tome_info", {}, raising=False)
    with pytest.raises(ValueError, match="undo it"), record_attention(model.model):
        pass


def test_the_second_attention_of_an_adapter_is_left_out(models):
    """An IP-Adapter attends to its picture behind the text, in the same module."""
    model = models("sd1")
    attn = attention_modules(model.model)["mid_block.attentions.0"]
    theirs, text = attn.processor, model.inputs["encoder_hidden_states"]

    class Adapter:
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, **kw):
            out = theirs(attn, hidden_states, encoder_hidden_states, **kw)
            return out + 0 * theirs(attn, hidden_states, encoder_hidden_states[:, :3], **kw)

    with record_attention(model.model, "mid") as plain:
        model()
    attn.processor = Adapter()
    try:
        with record_attention(model.model, "mid") as record:
            model()
    finally:
        attn.processor = theirs
    assert record.maps["mid_block.attentions.0"].shape[-1] == text.shape[1]
    assert torch.equal(record.maps["mid_block.attentions.0"], plain.maps["mid_block.attentions.0"])


def test_grouped_keys_causal_masks_and_scales_are_those_of_the_call():
    q, k, v = tiny.normal(1, 4, 5, 8), tiny.normal(1, 2, 5, 8), tiny.normal(1, 2, 5, 8) * 2
    seen = scores.Seen.of(q, k, v, is_causal=True, scale=0.3, enable_gqa=True)
    place = families.Place(slice(0, 5), None)
    found = scores.scores(seen, families.Layout((1, 5), [place], [place]), scores.Wanted("self", heads="each"))
    truth = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(found[:, :, 0] @ v.repeat_interleave(2, 1), truth)


def test_a_layer_that_a_cache_spares_in_one_call_is_an_error_and_no_smaller_mean(models):
    model, kept = models("flux"), {}
    module = attention_modules(model.model)["transformer_blocks.1"]
    forward = module.forward

    def cached(*args, **kwargs):  # as pyramid attention broadcast does
        if "out" not in kept:
            kept["out"] = forward(*args, **kwargs)
        return kept["out"]

    module.forward = cached
    try:
        with record_attention(model.model):
            model()
            with pytest.raises(RuntimeError, match=r"transformer_blocks\.1 was not seen"):
                model()
    finally:
        del module.forward
    block = model.model.transformer_blocks[1]
    block.forward = lambda hidden_states, encoder_hidden_states, **kwargs: (encoder_hidden_states, hidden_states)
    try:
        with (
            record_attention(model.model),
            pytest.raises(RuntimeError, match=r"but transformer_blocks\.1 did not: .*cache"),
        ):
            model()
    finally:
        del block.forward


def test_maps_that_are_of_no_word_are_not_read_as_such(models):
    for kind in ("self", "text"):
        with record_attention(models("sd3").model, kind=kind, heads="each") as record:
            models("sd3")()
        with pytest.raises(ValueError, match=f"{kind}-attention has no map of a word"):
            word_map(record, [1], (8, 8), row=0)
        assert record.row(1)[0].shape == ((4, 6, 24) if kind == "self" else (7, 7))


# Several rows, calls and users


def test_which_row_is_meant_must_be_said(models):
    model = models("sd1")
    with record_attention(model.model, "mid") as record:
        model()
    with pytest.raises(ValueError, match="of 2 rows of a batch: say which"):
        word_map(record, [2], (16, 48))
    first, second = (word_map(record, [2], (16, 48), row=r) for r in (0, 1))
    assert (first - second).abs().max() > 0.01
    with pytest.raises(ValueError, match="row=2: the batch has 2 rows"):
        word_map(record, [2], (16, 48), row=2)


@every
def test_calls_with_other_texts_or_batches_share_no_mean(models, name):
    model = models(name)
    text = "cap_feats" if name == "z_image" else "encoder_hidden_states"
    other = [x + 1 for x in model.inputs[text]] if name == "z_image" else model.inputs[text] + 1
    with record_attention(model.model):
        model()
        with pytest.raises(ValueError, match="other texts than the one before"):
            model(**{text: other})
    copy = [x.clone() for x in model.inputs[text]] if name == "z_image" else model.inputs[text].clone()
    with record_attention(model.model) as record:
        model()
        model(**{text: copy})
    assert record.calls == 2


def test_a_mean_over_sizes_is_refused(models):
    model = models("sd1")
    with record_attention(model.model):
        model()
        with pytest.raises(ValueError, match=r"gave maps \(2, 16, 16, 7\) after \(2, 8, 24, 7\)"):
            model(sample=tiny.normal(2, 4, 16, 16))


def test_two_threads_on_one_model_are_kept_apart(models):
    """Each sees its own calls; a third, who records nothing, is let be."""
    model, seen = models("sd3"), {}
    gate = threading.Barrier(3)
    inputs = [tiny.normal(2, 4, 8, 12) * s for s in (1, 2, 3)]
    alone = []
    for x in inputs:
        with record_attention(model.model) as record:
            model(hidden_states=x)
        alone.append(record.maps)

    def work(i):
        if i == 2:
            gate.wait()
            for _ in range(3):
                model(hidden_states=inputs[i])
            gate.wait()
            return
        with record_attention(model.model) as record:
            gate.wait()
            for _ in range(3):
                model(hidden_states=inputs[i])
            gate.wait()
        seen[i] = record

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for i in (0, 1):
        assert seen[i].calls == 3
        for layer, m in seen[i].maps.items():
            torch.testing.assert_close(m, alone[i][layer])


def test_memory_does_not_grow_with_calls(models):
    model, held = models("flux"), []
    with record_attention(model.model):
        for _ in range(3):
            model()
            tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor]
            held.append(sum(t.shape[-3:] == (3, 5, 7) for t in tensors))
    assert held == [5, 5, 5]
