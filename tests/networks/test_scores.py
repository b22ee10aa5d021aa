"""Scores from what the attention function was given: over all keys or the words, and the output space."""

import pytest
import tiny
import torch
from tiny import JOINT, MODELS

from refdiff_lite.attention import record_attention
from refdiff_lite.networks import families, recorder, scores
from refdiff_lite.networks.families import attention_modules

every = pytest.mark.parametrize("name", MODELS)
joint = pytest.mark.parametrize("name", JOINT)


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


def test_grouped_keys_causal_masks_and_scales_are_those_of_the_call():
    q, k, v = tiny.normal(1, 4, 5, 8), tiny.normal(1, 2, 5, 8), tiny.normal(1, 2, 5, 8) * 2
    seen = scores.Seen.of(q, k, v, is_causal=True, scale=0.3, enable_gqa=True)
    place = families.Place(slice(0, 5), None)
    found = scores.scores(seen, families.Layout((1, 5), [place], [place]), scores.Wanted("self", heads="each"))
    truth = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(found[:, :, 0] @ v.repeat_interleave(2, 1), truth)
