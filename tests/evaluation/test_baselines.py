"""Baselines on tiny untrained networks: each does what its name says."""

from types import SimpleNamespace

import pytest
import torch

from refdiff_lite import ranking
from refdiff_lite.evaluation.baselines import GLOBAL_SHARE, clip_scores, global_features, random_choice
from refdiff_lite.expression import parse


@pytest.fixture
def scene(clip, clip_tokenizer, half):
    """As much of a Scene as the CLIP baselines read; its image has a red and a blue half."""
    import numpy as np

    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32, 0], image[:, 32:, 2] = 255, 255
    nets = SimpleNamespace(
        clip=clip, clip_tokenizer=clip_tokenizer, clip_mean=half, clip_std=half, device=torch.device("cpu")
    )
    pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255

    def visual(branch, kind, masks, cues):
        assert cues == ()  # the baselines know no positional bias
        if branch == "crop":
            return clip.encode_images(clip, ranking.crops(pixels, masks, 64, "square", 8), half, half)
        return clip.encode_masks(clip, pixels, masks, (64, 64), half, half)

    return SimpleNamespace(image=image, model=SimpleNamespace(backbones=nets), visual=visual, _features={})


@pytest.fixture
def masks():
    out = torch.zeros(2, 64, 64, dtype=torch.bool)
    out[0, :, :32], out[1, :, 32:] = True, True
    return out


def test_random_is_uniform_and_each_sentence_s_own():
    drawn = [random_choice(4, 0, sent) for sent in range(400)]
    assert drawn == [random_choice(4, 0, sent) for sent in range(400)]
    assert all(70 < drawn.count(k) < 130 for k in range(4))
    assert drawn != [random_choice(4, 1, sent) for sent in range(400)]


def test_a_mask_of_everything_is_plain_clip(scene, clip, half):
    full = torch.ones(1, 64, 64, dtype=torch.bool)
    pixels = torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255
    plain = clip.encode_images(clip, [pixels], half, half)
    torch.testing.assert_close(global_features(scene, full), plain, atol=1e-5, rtol=0)


def test_the_global_branch_sees_the_mask_and_its_surroundings(scene, masks):
    before = global_features(scene, masks)
    assert (before[0] - before[1]).abs().max() > 1e-4
    scene.image[:, 40:, 1] = 255  # outside of mask 0
    after = global_features(scene, masks)
    assert (after[0] - before[0]).abs().max() > 1e-6  # the first blocks saw it
    assert (after[0] - before[0]).norm() < (after[1] - before[1]).norm()


def test_each_baseline_scores_by_its_own_features(scene, masks, clip, clip_tokenizer):
    expression = parse("the red cat on the left")
    text = clip.encode_text(clip, clip_tokenizer, expression.text, expression.head)
    crop, region = (scene.visual(b, "sam", masks, ()) for b in ("crop", "masked"))
    mixed = torch.nn.functional.normalize(
        GLOBAL_SHARE * global_features(scene, masks) + (1 - GLOBAL_SHARE) * crop, dim=-1
    )
    expected = {"cropping": crop @ text[0], "region-token": region @ text[0], "global-local": mixed @ text.mean(0)}
    for name, scores in expected.items():
        torch.testing.assert_close(clip_scores(name, scene, expression, "sam", masks), scores)


def test_features_of_word_dependent_proposals_are_not_kept(scene, masks):
    expression = parse("cat")
    first = clip_scores("global-local", scene, expression, "weak", masks)
    other = clip_scores("global-local", scene, expression, "weak", masks.flip(0))
    torch.testing.assert_close(first, other.flip(0))
