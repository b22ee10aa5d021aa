import open_clip
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from refdiff_lite import ranking
from refdiff_lite.networks import clip as towers
from refdiff_lite.toy import train_clip
from refdiff_lite.toy.train_clip import SIDE, tokens

TEXTS = ["the small blue cat", "dog", "a cup, a red car and an owl", "🐱 猫"]


# P, the positional bias


@pytest.mark.parametrize(
    ("cue", "first", "last", "axis"),
    [("left", 1, 0, 1), ("right", 0, 1, 1), ("top", 1, 0, 0), ("bottom", 0, 1, 0)],
)
def test_bias_falls_from_the_cue(cue, first, last, axis):
    bias = ranking.positional_bias((cue,), (5, 9))
    assert bias.shape == (5, 9)
    line = torch.linspace(first, last, (5, 9)[axis])
    torch.testing.assert_close(bias, (line[None, :] if axis else line[:, None]).expand(5, 9))


def test_bias_without_a_cue_and_at_one_pixel():
    assert torch.equal(ranking.positional_bias((), (3, 4)), torch.ones(3, 4))
    assert torch.equal(ranking.positional_bias(("left",), (3, 1)), torch.ones(3, 1))


@pytest.mark.parametrize("cue", ["left", "right", "top", "bottom"])
def test_a_short_ramp_is_zero_on_the_last_third(cue):
    bias = ranking.positional_bias((cue,), (31, 31), ramp=2 / 3)
    line = bias[0] if cue in ("left", "right") else bias[:, 0]
    line = line.flip(0) if cue in ("right", "bottom") else line
    assert line[0] == 1
    torch.testing.assert_close(line[:20], torch.linspace(1, 0, 20))  # 31 * 2 // 3 pixels
    assert (line[20:] == 0).all()


def test_two_cues_are_multiplied():
    p = ranking.positional_bias
    both = p(("left", "bottom"), (5, 9))
    torch.testing.assert_close(both, p(("left",), (5, 9)) * p(("bottom",), (5, 9)))
    assert both[4, 0] == 1
    assert both[0, 0] == both[4, 8] == 0


# Crops


def test_square_crops_are_tight_and_black_outside(image, masks):
    masks[0, 10:30, 20:45] = False
    found = ranking.crops(image, masks, 64, "square")
    assert [tuple(c.shape) for c in found] == [(3, 64, 64)] * 4
    assert all(c.min() >= 0 and c.max() <= 1 for c in found)
    assert found[0][:, :28, :28].max() < 0.01
    assert found[0][:, 40:, 40:].min() > 0
    assert found[1].min() > 0  # a full rectangle: nothing outside it is seen
    expected = interpolate(image[None, :, 60:90, 5:120], (64, 64), mode="bicubic", antialias=True).clamp(0, 1)[0]
    torch.testing.assert_close(found[1], expected)


def test_crops_by_the_shorter_side_keep_their_shape(image, masks):
    masks = torch.cat([masks, torch.zeros(1, 96, 128, dtype=torch.bool)])
    masks[4, 7:9, 10:100] = True  # a sliver
    shapes = [tuple(c.shape) for c in ranking.crops(image, masks, 64, "shorter")]
    assert shapes == [(3, 64, 80), (3, 64, 245), (3, 96, 64), (3, 64, 64), (3, 64, 2560)]


def test_no_masks_no_crops(image, masks):
    empty = torch.zeros(0, 96, 128, dtype=torch.bool)
    assert ranking.crops(image, empty, 64, "square") == []


# Features of images


# Class tokens that see one mask each


# Text, and the score


def test_text_features(clip, clip_tokenizer, tokenizer):
    found = towers.encode_text(clip, clip_tokenizer, "the small blue cat", "cat")
    assert found.shape == (2, 128)
    expected = clip.encode_text(tokens(tokenizer, ["the small blue cat", "cat"]), normalize=True)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 1])
def test_branch_score(noise, share):
    features, text = noise(5, 8), noise(2, 8)
    found = ranking.branch_score(features, text, share)
    torch.testing.assert_close(found, (1 - share) * features @ text[0] + share * features @ text[1])
    assert ranking.branch_score(features.half(), text.half(), share).dtype == torch.float32


# The toy CLIP on disk, and as Stable Diffusion's text encoder


def test_saved_clip_loads_as_an_open_clip_local_dir(clip, clip_dir, tokenizer, clip_tokenizer, half):
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_dir}")
    loaded.eval()
    picture = Image.new("RGB", (100, 50), (255, 0, 127))
    x = preprocess(picture)[None]
    assert x.shape == (1, 3, SIDE, SIDE)
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([1.0, -1.0, 0.0]), atol=0.01, rtol=0)
    assert torch.equal(clip_tokenizer(TEXTS), tokens(tokenizer, TEXTS))
    with torch.no_grad():
        noise = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        for found, expected in (
            (loaded.encode_image(noise), clip.encode_image(noise)),
            (loaded.encode_text(clip_tokenizer(TEXTS)), clip.encode_text(tokens(tokenizer, TEXTS))),
        ):
            torch.testing.assert_close(found, expected, atol=0.02, rtol=0.01)
    assert not list(clip_dir.glob("*.partial"))


def test_text_encoder_has_clips_weights(clip, tokenizer):
    ids = tokens(tokenizer, TEXTS)
    with torch.no_grad():
        pooled = train_clip.text_encoder(clip, tokenizer)(ids).pooler_output
    torch.testing.assert_close(pooled @ clip.text_projection, clip.encode_text(ids), atol=1e-4, rtol=1e-4)
