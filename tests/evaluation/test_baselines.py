"""Baselines: each does what its name says, whatever the config of the method beside it."""

import numpy as np
import pytest
import torch
from einops import rearrange

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.evaluation.baselines import (
    baseline,
    clip_scores,
    global_features,
    global_local,
    local_features,
    noun_phrase,
    random_choice,
)
from refdiff_lite.expression import parse
from refdiff_lite.networks import clip as towers


@pytest.fixture
def picture():
    """A red and a blue half."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32, 0], image[:, 32:, 2] = 255, 255
    return image


@pytest.fixture
def masks():
    out = np.zeros((2, 64, 64), bool)
    out[0, :, :32], out[1, :, 32:] = True, True
    return out


@pytest.fixture
def scene(sd15_nets, picture, masks):
    return RefDiff(sd15_nets, RefDiffConfig.paper()).set_image(picture, oracle=masks)


def test_random_is_uniform_and_each_sentence_s_own():
    drawn = [random_choice(4, 0, sent) for sent in range(400)]
    assert drawn == [random_choice(4, 0, sent) for sent in range(400)]
    assert all(70 < drawn.count(k) < 130 for k in range(4))
    assert drawn != [random_choice(4, 1, sent) for sent in range(400)]


@pytest.mark.parametrize(
    ("text", "head", "phrase"),
    [
        ("the small black cat on the left", None, "the small black cat"),
        ("left of a small cat on a mat", "cat", "a small cat"),
        ("cat", None, "cat"),
        ("the dog and two white cats", "cats", "two white cats"),
        ("man, blue shirt", "shirt", "blue shirt"),
        ("the big red double-decker bus", None, "the big red double-decker bus"),
    ],
)
def test_the_heads_noun_phrase(text, head, phrase):
    assert noun_phrase(parse(text, head)) == phrase


def test_the_global_branch_of_a_mask_of_everything_is_plain_clip(scene, clip, half):
    full = scene.proposals_of(np.ones((1, 64, 64), bool))
    pixels = rearrange(torch.tensor(scene.image), "h w rgb -> rgb h w").float() / 255
    plain = towers.encode_images(clip, [pixels], half, half, unit=False)
    torch.testing.assert_close(global_features(scene.model.networks, full), plain, atol=1e-5, rtol=0)


def test_the_global_branch_sees_the_mask_and_its_surroundings(scene, picture, masks):
    before = global_features(scene.model.networks, scene.proposals_of(masks))
    picture[:, 40:, 1] = 255  # outside of mask 0
    other = scene.model.set_image(picture)
    after = global_features(scene.model.networks, other.proposals_of(masks))
    assert (after[0] - before[0]).abs().max() > 1e-6  # the first blocks saw it
    assert (after[0] - before[0]).norm() < (after[1] - before[1]).norm()


def test_the_local_crop_is_surrounded_by_clips_mean(scene, clip, half):
    disc = (np.hypot(*np.mgrid[-31.5:32, -31.5:32]) < 30)[None]
    pixels = rearrange(torch.tensor(scene.image), "h w rgb -> rgb h w").float() / 255
    inside = torch.from_numpy(disc)
    square = torch.where(inside, pixels, 0.5)[:, 2:62, 2:62]
    resized = torch.nn.functional.interpolate(square[None], (64, 64), mode="bicubic", antialias=True)[0].clamp(0, 1)
    expected = towers.encode_images(clip, [resized], half, half, unit=False)
    found = local_features(scene.model.networks, scene.proposals_of(disc))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_features_are_mixed_before_they_are_brought_to_length_one(scene, masks, clip, clip_tokenizer):
    nets, expression, proposals = scene.model.networks, parse("the red cat on the left"), scene.proposals_of(masks)
    whole, local = global_features(nets, proposals), local_features(nets, proposals)
    texts = [
        clip.encode_text(clip_tokenizer([t]), normalize=False)[0] for t in ("the red cat on the left", "the red cat")
    ]
    text = torch.stack(texts).mean(0)
    for share in (0.95, 0.85):
        mixed = share * whole + (1 - share) * local
        expected = mixed @ text / (mixed.norm(dim=1) * text.norm())
        torch.testing.assert_close(global_local(nets, proposals, expression, share), expected, atol=1e-5, rtol=0)


def test_refcocog_has_a_share_of_its_own(scene, masks):
    nets, expression = scene.model.networks, parse("the red cat")
    proposals = scene.proposals_of(masks)
    for dataset, share in (("refcoco", 0.95), ("refcoco+", 0.95), ("refcocog", 0.85), ("", 0.95)):
        found = clip_scores("global-local", scene, expression, proposals, dataset)
        torch.testing.assert_close(found, global_local(nets, proposals, expression, share))


@pytest.mark.parametrize("name", ["cropping", "region-token", "global-local"])
def test_baselines_do_not_change_with_the_methods_constants(sd15_nets, picture, masks, name):
    expression = parse("the cat on the left")
    configs = (RefDiffConfig.paper(), RefDiffConfig.official(min_area=0), RefDiffConfig.toy(beta=0.9))
    found = []
    for config in configs:
        scene = RefDiff(sd15_nets, config).set_image(picture, oracle=masks)
        found.append(clip_scores(name, scene, expression, scene.proposals_of(masks)))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


@pytest.mark.parametrize("name", ["cropping", "region-token", "global-local"])
def test_scores_follow_the_masks_that_are_given(scene, masks, name):
    expression = parse("cat")
    first = clip_scores(name, scene, expression, scene.proposals_of(masks))
    narrow = masks & np.tri(64, dtype=bool)  # of each a triangle is left
    other = clip_scores(name, scene, expression, scene.proposals_of(narrow))
    assert (first - other).abs().max() > 1e-5


def test_choices(scene, masks):
    proposals = scene.proposals_of(
        masks | (np.arange(64) < 8)[None, None]
    )  # the second one is larger now, so it is first
    assert proposals.masks.flatten(1).sum(1).tolist() == [40 * 64, 32 * 64]
    assert baseline("largest", scene, parse("cat"), proposals, 0, [0.1, 0.2]) == 0
    assert baseline("oracle", scene, parse("cat"), proposals, 0, [0.1, 0.2]) == 1
    assert baseline("oracle", scene, parse("cat"), scene.proposals_of(masks[:0]), 0, []) is None


@pytest.mark.parametrize("name", ["cropping", "region-token", "global-local"])
def test_baselines_run_with_one_network_at_a_time(sd15_nets, picture, masks, name, monkeypatch):
    """They ask the networks' object for CLIP, which in low-memory mode brings it to the device first."""
    asked = []
    use = type(sd15_nets).use
    monkeypatch.setattr(type(sd15_nets), "use", lambda self, part: asked.append(part) or use(self, part))
    scene = RefDiff(sd15_nets, RefDiffConfig.paper()).set_image(picture, oracle=masks)
    clip_scores(name, scene, parse("cat"), scene.proposals_of(masks))
    assert set(asked) == {"clip"}
