import numpy as np
import pytest
import torch

from refdiff_lite import proposals
from refdiff_lite.attention import AttentionMaps
from refdiff_lite.evaluation.metrics import iou
from refdiff_lite.toy.scenes import make_scene


@pytest.fixture
def word():
    return torch.rand(12, 16, generator=torch.Generator().manual_seed(0))


def test_weak_proposals_are_nested_thresholds(word):
    masks = proposals.weak(word)
    assert masks.shape == (19, 12, 16)
    assert masks.dtype == torch.bool
    for i, mask in enumerate(masks):
        assert torch.equal(mask, word >= (i + 1) / 20)
    assert all((masks[i] | ~masks[i + 1]).all() for i in range(18))
    assert torch.equal(proposals.weak(word, 1)[0], word >= 0.5)


def test_otsu_choice_against_numpy(word):
    masks, c = proposals.weak(word), word.numpy()
    expected = []
    for m in masks.numpy():
        p = m.mean()
        expected.append(p * (1 - p) * (c[m].mean() - c[~m].mean()) ** 2)
    np.testing.assert_allclose(proposals.otsu_choice(word, masks), expected, rtol=1e-4)


def test_otsu_choice_finds_the_object_and_survives_empty_sides():
    c = torch.full((10, 10), 0.2)
    c[2:8, 2:8] = 0.7
    c[3, 3] = 1.0  # one peak
    masks = proposals.weak(c)
    best = masks[proposals.otsu_choice(c, masks).argmax()]
    assert torch.equal(best, c > 0.5)
    sides = torch.stack([torch.zeros(10, 10), torch.ones(10, 10)]).bool()
    assert torch.equal(proposals.otsu_choice(c, sides), torch.zeros(2))


def test_felzenszwalb_finds_the_things_of_toyref():
    best = []
    for index in range(6):
        scene = make_scene("val", index)
        masks = proposals.felzenszwalb(scene.image)
        assert masks.dtype == torch.bool
        best += [max(iou(m, truth) for m in masks.numpy()) for truth in scene.masks]
    assert np.mean(best) > 0.7


def test_felzenszwalb_finds_every_shape_and_leaves_the_ground_out():
    image = np.full((64, 96, 3), 200, np.uint8)
    truths = [np.zeros((64, 96), bool) for _ in range(3)]
    for truth, where, colour in zip(
        truths,
        (np.s_[10:30, 10:30], np.s_[40:60, 20:35], np.s_[15:55, 60:90]),
        ((220, 30, 30), (30, 30, 220), (30, 160, 30)),
        strict=True,
    ):
        truth[where], image[where] = True, colour
    image[25:35, 70:80] = 200  # a hole as bright as the ground is filled
    found = proposals.felzenszwalb(image).numpy()
    overlap = np.array([[iou(m, t) for t in truths] for m in found])
    assert (overlap.max(0) > 0.75).all()
    assert not [m for m in found if m[0, 0]]
    large = proposals.felzenszwalb(image, min_area=0.1).numpy()
    assert len(large) == 1
    assert iou(large[0], truths[2]) > 0.75


@pytest.mark.parametrize("size", [(40, 60), (8, 8)])
def test_felzenszwalb_of_a_flat_image(size):
    masks = proposals.felzenszwalb(np.full((*size, 3), 90, np.uint8))
    assert masks.shape == (0, *size)
    assert masks.dtype == torch.bool


def test_self_attention_groups_pixels_that_look_at_the_same_places():
    region = torch.zeros(8, 12, dtype=torch.long)
    region[1:5, 2:6], region[4:8, 8:12] = 1, 2
    same = (region.flatten()[:, None] == region.flatten()).float()
    rows = (same / same.sum(1, keepdim=True)).reshape(1, 8, 12, 96)
    coarse = torch.rand(1, 4, 6, 24, generator=torch.Generator().manual_seed(0))
    attention = AttentionMaps("self", "softmax", {"coarse": coarse, "fine": rows}, 1)
    masks = proposals.self_attention(attention, (64, 96), clusters=3)
    assert masks.shape[1:] == (64, 96)
    assert masks.dtype == torch.bool
    for i in (1, 2):
        truth = np.kron(region.numpy() == i, np.ones((8, 8))) > 0
        assert max(iou(m, truth) for m in masks.numpy()) > 0.85
    assert all(0.004 <= m.float().mean() <= 0.5 for m in masks)
    assert (masks.sum(0) <= 1).all()
    assert torch.equal(masks, proposals.self_attention(attention, (64, 96), clusters=3))


def test_sam_asks_the_generator_for_masks():
    def generator(image, points_per_batch):
        assert image.size == (30, 20)
        assert np.array(image)[0, 0].tolist() == [1, 2, 3]
        return {"masks": [np.eye(20, 30), np.zeros((20, 30), bool)]}

    image = np.full((20, 30, 3), (1, 2, 3), np.uint8)
    masks = proposals.sam(image, generator)
    assert masks.dtype == torch.bool
    np.testing.assert_array_equal(masks, [np.eye(20, 30) > 0, np.zeros((20, 30))])
    assert proposals.sam(image, lambda *_, **__: {"masks": []}).shape == (0, 20, 30)


def test_grouping_joins_a_thing_of_two_colours_on_a_ground_that_is_not_calm():
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(60, 120, (8, 12, 3)), np.ones((16, 16, 1))).astype(
        np.uint8
    )  # patches of green to grey
    image[..., 0] //= 2
    thing = np.zeros((128, 192), bool)
    thing[40:90, 60:120] = True
    image[40:90, 60:90], image[40:90, 90:120] = (230, 40, 40), (200, 60, 60)
    masks = proposals.grouping(image).numpy()
    assert max(iou(m, thing) for m in masks) > 0.95
    assert max(iou(m, thing & (np.arange(192) < 90)) for m in masks) > 0.9  # and its parts
    assert all(0.004 * thing.size <= m.sum() <= 0.6 * thing.size for m in masks)
    assert len(proposals.unique(torch.from_numpy(masks), 0.9)) == len(masks)


@pytest.mark.parametrize("size", [(8, 8), (9, 200), (64, 64)])
def test_grouping_of_a_flat_image(size):
    assert proposals.grouping(np.full((*size, 3), 90, np.uint8)).shape == (0, *size)
