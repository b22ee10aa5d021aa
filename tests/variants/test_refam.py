import pytest
import torch

from refdiff_lite import RefDiff
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.expression import parse
from refdiff_lite.variants import refam
from refdiff_lite.variants.refam import RefAM, content, filtered_map, point_score, sinks


def test_the_brightest_pixel_chooses_among_the_masks_that_hold_it():
    c = torch.zeros(3, 4)
    c[0, 3] = 1.0
    masks = torch.zeros(3, 3, 4, dtype=torch.bool)
    masks[0, 0, 0] = True  # three pixels away
    masks[1, 0] = True
    masks[2, :, 3] = True
    s = point_score(c, masks, torch.tensor([0.9, 0.2, 0.3]))
    assert s.tolist() == pytest.approx([-1 - 3 / 5, 0.2, 0.3])  # the diagonal is 5


def test_content_is_what_stands_in_the_phrase_and_is_no_stop_word():
    values = RefAM(stop_words=("the", "of"))
    assert [content(w, at, 7, values) for w, at in (("The", 0), ("cat", 4), ("pink", 9))] == [False, True, False]


def test_a_sink_is_strong_and_flat():
    flat_strong = torch.full((2, 2), 0.8)
    flat_weak = torch.full((2, 2), 0.1)
    peaked = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    assert sinks(torch.stack([flat_strong, flat_weak]), RefAM()).tolist() == [True, False]
    assert sinks(torch.stack([peaked, flat_weak]), RefAM()).tolist() == [False, False]


def run(monkeypatch, text, each, **values):
    """The map of four words' maps (2, 2, tokens), whose tokens are the words in order."""

    class Scene:
        size = (2, 2)
        config = type("Config", (), {"pad": False})

    words = text.split()
    starts = [sum(len(w) + 1 for w in words[:i]) for i in range(len(words))]
    attention = ([torch.stack(each, -1)], list(zip(words, starts, strict=True)), [[i] for i in range(len(words))])
    monkeypatch.setattr(refam, "attention", lambda scene, prompt: attention)
    return filtered_map(Scene(), parse(" ".join(words[: values.pop("phrase")])), RefAM(**values))


def test_maps_of_stop_words_magnets_and_sinks_are_dropped_and_the_others_summed(monkeypatch):
    the, small, cat, pink = torch.zeros(4, 2, 2)
    the[0, 0], small[0, 1], cat[1, 0], pink[1, 1] = 1.0, 0.1, 0.2, 1.0
    found = run(monkeypatch, "the small cat pink", [the, small, cat, pink], phrase=3)
    assert found.flatten().tolist() == pytest.approx([0, 0.5, 1, 0])
    sink = torch.full((2, 2), 9.0) + small
    found = run(monkeypatch, "the small cat pink", [the, sink, cat, pink], phrase=3)
    assert found.flatten().tolist() == pytest.approx([0, 0, 1, 0])


def test_a_direction_dims_the_other_side(monkeypatch):
    even, none = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.zeros(2, 2)
    found = run(monkeypatch, "cat on the right", [even, none, none, none], phrase=4)
    assert found.flatten().tolist() == pytest.approx([0, 1, 0, 0])
    found = run(monkeypatch, "cat on the right", [even, none, none, none], phrase=4, bias=False)
    assert found.flatten().tolist() == pytest.approx([1, 1, 0, 0])


def test_on_a_unet_the_softmax_is_over_the_words(nets):
    scene = RefDiff(nets).set_image(load_toyref("test", "noun", 1)[0].path)
    layers, words, read = refam.attention(scene, "a cat . with to pink")
    assert [w for w, _ in words] == ["a", "cat", "with", "to", "pink"]
    assert all(p for p in read)
    for m in layers:
        torch.testing.assert_close(m.sum(-1), torch.ones(m.shape[:2]))
