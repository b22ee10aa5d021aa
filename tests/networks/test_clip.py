"""CLIP's towers: pictures of any size, and class tokens that see their masks alone."""

import open_clip
import pytest
import torch
from torch.nn.functional import cosine_similarity

from refdiff_lite.networks import clip as towers
from refdiff_lite.toy.train_clip import SIDE, TEXT, VISION


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
