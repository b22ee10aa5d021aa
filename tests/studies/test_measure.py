"""Measurements of the toy networks, on networks whose answers are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, uniform_filter

from refdiff_lite.toy.scenes import TINTS, categories, make_scene
from refdiff_lite.toy.train_clip import SIDE, crop_hits
from studies.measure import bounds, edges_kept, word_hits


class Asked:
    """A model that finds things in their own colour, and tinted ones only if the tint is said."""

    def set_image(self, image, oracle):
        self.things, self.masks = next((s.things, s.masks) for s in SCENES if s.image is image)
        return self

    def segment(self, text, variant, proposals):
        assert (variant, proposals) == ("gs", "oracle")
        *tint, noun = text.split()
        fits = [i for i, t in enumerate(self.things) if t.category == noun and (t.tint is None or t.tint in tint)]
        return SimpleNamespace(mask=self.masks[fits[0]] if fits else np.zeros_like(self.masks[0]))


SCENES = [make_scene("val", i) for i in range(12)]


def test_word_hits_tell_colour_from_shape():
    found = word_hits(Asked(), SCENES)
    shares = {name: np.mean([hit for _, hit in rows]) for name, rows in found.items()}
    assert shares == {"own colour, noun": 1, "tinted, noun": 0, "tinted, tint and noun": 1}
    once = [t for s in SCENES for t in s.things if sum(o.category == t.category for o in s.things) == 1]
    assert len(found["own colour, noun"]) == sum(t.tint is None for t in once)
    assert len(found["tinted, noun"]) == len(found["tinted, tint and noun"]) == sum(t.tint is not None for t in once)
    # Each row names the scene whose thing was asked for: as many rows of a scene as it has things named by a noun alone.
    for number, scene in enumerate(SCENES):
        alone = [t for t in scene.things if sum(o.category == t.category for o in scene.things) == 1]
        rows = [i for name in ("own colour, noun", "tinted, noun") for i, _ in found[name]]
        assert rows.count(number) == len(alone)


def test_edges_kept_falls_as_a_picture_is_blurred():
    scene = SCENES[0]
    blurred = [edges_kept(scene, uniform_filter(scene.image, (k, k, 1))) for k in (1, 3, 5, 9)]
    assert blurred[0] == 1
    assert blurred == sorted(blurred, reverse=True)
    assert blurred[-1] < 0.5
    near = binary_dilation(scene.masks.any(0), iterations=2)[..., None]
    assert edges_kept(scene, np.where(near, scene.image, 0)) == 1  # the ground does not count


def test_crop_hits_gives_the_tint_and_asks_for_the_kind(clip, monkeypatch):
    """Features that know each thing of the scene: all are right; of the thing after it: hardly any."""
    scene = SCENES[0]
    texts = [None, *TINTS]

    def tokenize(phrases):
        assert len(phrases) == len(categories())
        tint = next((t for t in TINTS if f" {t} " in phrases[0]), None)
        return torch.full((len(phrases), 1), texts.index(tint))

    def encode_text(ids, normalize):
        assert normalize
        rows = torch.zeros(len(ids), len(texts) * len(categories()))
        rows[range(len(ids)), ids[:, 0] * len(categories()) + torch.arange(len(ids))] = 1
        return rows

    def features(shift):
        things = scene.things[shift:] + scene.things[:shift]
        where = [texts.index(a.tint) * len(categories()) + categories().index(b.category)
                 for a, b in zip(scene.things, things, strict=True)]  # fmt: skip
        return torch.nn.functional.one_hot(torch.tensor(where), len(texts) * len(categories())).float()

    def encode_images(clip, images, mean, std):
        assert all(image.shape == (3, SIDE, SIDE) for image in images)
        return features(shift)

    monkeypatch.setattr("refdiff_lite.toy.train_clip.encode_images", encode_images)
    monkeypatch.setattr(clip, "encode_text", encode_text)
    shift = 0
    assert crop_hits(clip, tokenize, [scene]) == [(0, True)] * len(scene.things)
    shift = 1
    wrong = [a.category != b.category for a, b in zip(scene.things, scene.things[1:] + scene.things[:1], strict=True)]
    assert [not hit for _, hit in crop_hits(clip, tokenize, [scene])] == wrong
    assert any(wrong)


@pytest.mark.parametrize("images", [1, 12, 160])
def test_all_hit_is_no_interval_of_width_0(images):
    low, high = bounds([True] * 2 * images, [n // 2 for n in range(2 * images)])
    assert (low, high) == pytest.approx((images / (images + 1.96**2), 1), abs=1e-3)
    low, high = bounds([30.0 + n % 2 for n in range(40)], list(range(40)))  # decibels have no bounds
    assert 30 < low < 30.5 < high < 31
