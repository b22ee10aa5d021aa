import open_clip
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity, interpolate

from refdiff_lite import ranking
from refdiff_lite.networks import clip as towers
from refdiff_lite.toy import train_clip
from refdiff_lite.toy.train_clip import SIDE, TEXT, VISION, tokens

TEXTS = ["the small blue cat", "dog", "a cup, a red car and an owl", "🐱 猫"]


@pytest.fixture
def image():
    return 0.3 + 0.4 * torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def masks():
    out = torch.zeros(4, 96, 128, dtype=torch.bool)
    out[0, 10:50, 20:70] = True
    out[1, 60:90, 5:120] = True
    out[2, :, 64:] = True
    out[3, 3:6, 3:6] = True  # smaller than a patch
    return out


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


def test_images_at_clips_own_size_as_open_clip_does(clip, half, noise):
    images = list(torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
    found = towers.encode_images(clip, images, half, half)
    expected = clip.encode_image((torch.stack(images) - 0.5) / 0.5, normalize=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_images_of_several_sizes_keep_their_order(clip, half):
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *s, generator=generator) for s in ((64, 64), (64, 96), (64, 64), (96, 64), (64, 96))]
    found = towers.encode_images(clip, images, half, half)
    alone = torch.cat([towers.encode_images(clip, [i], half, half) for i in images])
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    assert torch.pdist(found).min() > 1e-3
    assert towers.encode_images(clip, [], half, half).shape == (0, 128)


# Class tokens that see one mask each


def test_mask_attention_structure():
    patch_masks = torch.tensor([[1, 0, 0], [1, 1, 0]], dtype=torch.bool)
    bias = towers.mask_attention(patch_masks)
    assert bias.dtype == torch.float32
    allowed = torch.tensor(
        [
            [1, 0, 1, 0, 0],  # the first class token: itself and its patch
            [0, 1, 1, 1, 0],
            [0, 0, 1, 1, 1],  # patches: all patches
            [0, 0, 1, 1, 1],
            [0, 0, 1, 1, 1],
        ]
    ).bool()
    assert torch.equal(bias == 0, allowed)
    assert torch.equal(bias == float("-inf"), ~allowed)


@pytest.mark.parametrize("side", [(64, 64), (96, 128)])
def test_many_masks_in_one_pass_equal_single_passes(clip, half, image, masks, side):
    together = towers.encode_masks(clip, image, masks, side, half, half)
    alone = torch.cat([towers.encode_masks(clip, image, m[None], side, half, half) for m in masks])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    assert torch.pdist(together).min() > 1e-3
    assert towers.encode_masks(clip, image, masks[:0], side, half, half).shape == (0, 128)


def test_a_class_token_sees_only_its_patches(half, image):
    """In a network of one layer nothing outside the mask can reach the class token."""
    torch.manual_seed(0)
    shallow = open_clip.CLIP(128, VISION | {"layers": 1}, TEXT | {"vocab_size": 50}).eval()
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 16:40, 8:32] = True
    picture = image[:, :64, :64]
    other = torch.where(mask, picture, 1 - picture)
    inside = torch.where(mask, 1 - picture, picture)
    a, b, c = (towers.encode_masks(shallow, p, mask, (64, 64), half, half) for p in (picture, other, inside))
    torch.testing.assert_close(a, b)
    assert (a - c).norm() > 0.01
    full = towers.encode_masks(shallow, picture, torch.ones_like(mask), (64, 64), half, half)
    torch.testing.assert_close(full, towers.encode_images(shallow, [picture], half, half))


def test_a_full_mask_is_nearly_the_plain_class_token(clip, half, image):
    """Only nearly, because here the patches do not look at the class token."""
    picture, mask = image[:, :64, :64], torch.ones(1, 64, 64, dtype=torch.bool)
    full = towers.encode_masks(clip, picture, mask, (SIDE, SIDE), half, half)
    plain = towers.encode_images(clip, [picture], half, half)
    corner = towers.encode_masks(clip, picture, mask & (torch.arange(64) < 16), (SIDE, SIDE), half, half)
    assert cosine_similarity(full, plain) > 0.99
    assert (full - plain).norm() < (corner - plain).norm()


def test_a_patch_belongs_to_the_mask_that_covers_half_of_it(clip, half, image):
    picture, grid = image[:, :64, :64], torch.zeros(4, 64, 64, dtype=torch.bool)
    grid[0, 8:16, 8:20] = True  # half of the second patch
    grid[1, 8:16, 8:24] = True
    grid[2, 8:16, 8:19] = True  # less than half
    grid[3, 8:16, 8:16] = True
    a, b, c, d = towers.encode_masks(clip, picture, grid, (64, 64), half, half)
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(c, d)
    assert (a - c).norm() > 1e-3


def test_a_tiny_mask_keeps_the_patch_that_it_covers_most(clip, half, image):
    picture, pair = image[:, :64, :64], torch.zeros(2, 64, 64, dtype=torch.bool)
    pair[0, 10, 15:18] = True  # one pixel in one patch, two in the next
    pair[1, 8:16, 16:24] = True
    tiny, patch = towers.encode_masks(clip, picture, pair, (64, 64), half, half)
    torch.testing.assert_close(tiny, patch)


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
