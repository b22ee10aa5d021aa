"""One recorder for every family: what it records is what the model computed, and the model computes the same."""

import gc
import threading

import pytest
import tiny
import torch
from tiny import MODELS

from refdiff_lite.attention import record_attention, run_for_attention, word_map
from refdiff_lite.networks import families
from refdiff_lite.networks.families import attention_modules

KINDS = {"cross", "self", "reverse", "text", "output"}
every = pytest.mark.parametrize("name", MODELS)


def hooks(model):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def kinds_of(model):
    return families.family_of(model).modules


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
