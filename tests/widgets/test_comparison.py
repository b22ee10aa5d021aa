"""Two recordings beside each other: which words belong together, and that the difference is one."""

import numpy as np
import pytest

from refdiff_lite import RefDiff
from refdiff_lite.config import RefDiffConfig
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.widgets import AttentionComparison, AttentionExplorer
from refdiff_lite.widgets.base import EXPORT_BYTES, unpack
from refdiff_lite.widgets.comparison import pair_words


@pytest.fixture(scope="module")
def scene():
    return RefDiff.from_preset("toy").set_image(load_toyref("val")[0].image())


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("a red car", "a blue car", ["a", "red → blue", "car"]),
        ("a car", "a small car", ["a", "∅ → small", "car"]),
        ("the big dog left", "the cat", ["the", "big → cat", "dog → ∅", "left → ∅"]),
        ("Dog", "dog", ["Dog"]),
    ],
)
def test_words_are_paired(first, second, found):
    pairs = pair_words(first.split(), second.split())
    assert [p.text for p in pairs] == found
    for numbers, words in (([p.first for p in pairs], first), ([p.second for p in pairs], second)):
        assert [n for n in numbers if n is not None] == list(range(len(words.split())))


def test_the_difference_is_that_of_the_explorers_maps(scene):
    texts = "the chair on the left", "the dog on the left"
    both = [AttentionExplorer.from_scene(scene, t) for t in texts]
    shown = AttentionComparison.from_scenes(*((scene, t) for t in texts))
    shown.word = [p.text for p in shown.pairs].index("chair → dog")
    expected = both[0].maps()[2] - both[1].maps()[2]
    assert np.abs(shown.difference() - expected).max() < 1e-6
    levels = shown.answer(shown.key)[shown.key]
    (low, high) = shown.answer(shown.key)[f"range/{shown.key}"][2]
    assert np.abs(low + levels[2] / 255 * (high - low) - expected).max() < (high - low) / 255


def test_the_same_recording_twice_differs_nowhere_and_two_layers_do(scene):
    attention = AttentionExplorer.from_scene(scene, "the dog").attention
    same = AttentionComparison(attention, attention)
    assert not same.difference().any()
    names = [n for n in attention.cross[0]]
    layers = AttentionComparison(attention, attention, layer=names[0], other=names[-1])
    assert np.abs(layers.difference()).max() > 0.01


def test_two_seeds_differ_in_their_noise():
    image = load_toyref("val")[0].image()
    scenes = [RefDiff.from_preset("toy", RefDiffConfig.toy(seed=s)).set_image(image) for s in (0, 1)]
    shown = AttentionComparison.from_scenes(*((s, "the dog") for s in scenes), names=("seed 0", "seed 1"))
    assert 0.001 < np.abs(shown.difference()).max() < 0.5


def test_a_word_of_one_sentence_alone_has_one_map(scene):
    shown = AttentionComparison.from_scenes((scene, "the dog"), (scene, "the small dog"))
    shown.word = [p.text for p in shown.pairs].index("∅ → small")
    first, second = shown.maps()
    assert first is None
    assert second is not None
    assert not shown.difference().any()
    assert shown.still().startswith(b"\x89PNG")


def test_a_page_keeps_every_word_within_its_size(scene):
    shown = AttentionComparison.from_scenes((scene, "the dog"), (scene, "the small dog"))
    meta, block = shown.kept()
    kept = unpack(meta["index"], block)
    assert all(f"pair/{w}/{shown.layer}/{shown.other}/-1/0/probabilities" in kept for w in range(len(shown.pairs)))
    assert len(shown.to_html()) <= EXPORT_BYTES


def test_unknown_words_and_layers_are_refused(scene):
    shown = AttentionComparison.from_scenes((scene, "the dog"), (scene, "the cat"))
    shown.layer = "nowhere"
    with pytest.raises(ValueError, match="was not recorded"):
        shown.maps()
