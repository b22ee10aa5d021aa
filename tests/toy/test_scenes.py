import numpy as np
import pytest

from refdiff_lite.toy.scenes import (
    HELD_OUT,
    LARGE,
    SIDE,
    SMALL,
    TINTS,
    Thing,
    allowed_tints,
    background,
    categories,
    draw,
    make_scene,
    sprite,
)

SPLITS = ("train", "val", "test", "unseen", "closeup")


@pytest.fixture(scope="module")
def scenes():
    return [make_scene("val", i) for i in range(40)]


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_number_is_the_same_scene(split):
    a, b, other = make_scene(split, 3), make_scene(split, 3), make_scene(split, 4)
    assert a.things == b.things != other.things
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.masks, b.masks)
    assert not np.array_equal(a.image, other.image)


def test_splits_differ():
    assert len({make_scene(split, 3, 16).things for split in SPLITS}) == len(SPLITS)


def test_unknown_split():
    with pytest.raises(ValueError, match=r"unknown split 'dev'.*train, val"):
        make_scene("dev", 0)


def test_shapes_and_masks(scenes):
    assert {len(s.things) for s in scenes} == {2, 3, 4, 5}
    for s in scenes:
        assert (s.image.shape, s.image.dtype) == ((SIDE, SIDE, 3), np.uint8)
        assert (s.masks.shape, s.masks.dtype) == ((len(s.things), SIDE, SIDE), bool)
        assert s.masks.sum(0).max() <= 1  # visible pixels only: disjoint
        assert s.masks.any((1, 2)).all()


def test_a_mask_lies_where_its_thing_is(scenes):
    for s in scenes:
        for thing, mask in zip(s.things, s.masks, strict=True):
            assert thing.x - thing.size / 2 >= 0
            assert thing.x + thing.size / 2 <= 1
            assert 0.22 <= thing.size <= 0.42
            y, x = (np.mean(i) / SIDE for i in np.nonzero(mask))
            assert np.hypot(x - thing.x, y - thing.y) < 0.4 * thing.size
            assert mask.sum() <= (thing.size * SIDE + 2) ** 2


def test_a_later_thing_hides_an_earlier_one():
    below, above = Thing("ball", None, 0.4, 0.4, 0.5), Thing("pizza", None, 0.4, 0.5, 0.5)
    both, alone = (draw(t, np.random.default_rng(0)) for t in ((below, above), (below,)))
    top = draw((above,), np.random.default_rng(0)).masks[0]
    np.testing.assert_array_equal(both.masks[1], top)
    np.testing.assert_array_equal(both.masks[0], alone.masks[0] & ~top)
    assert 0 < both.masks[0].sum() < alone.masks[0].sum()


def test_pixels_outside_every_thing_are_background(scenes):
    thing = Thing("cat", "blue", 0.3, 0.3, 0.3)
    scene = draw((thing,), np.random.default_rng(5))
    ground = background(np.random.default_rng(5)).round().clip(0, 255).astype(np.uint8)
    far = np.s_[SIDE * 6 // 10 :, :]
    np.testing.assert_array_equal(scene.image[far], ground[far])
    changed = np.abs(scene.image.astype(int) - ground).sum(-1) > 30
    assert changed[scene.masks[0]].mean() > 0.9


@pytest.mark.parametrize("split", ["train", "val", "test", "closeup"])
def test_held_out_pairs_are_not_drawn(split):
    pairs = {(t.category, t.tint) for i in range(150) for t in make_scene(split, i, 16).things}
    assert len(pairs) > 60
    assert not pairs & HELD_OUT


def test_held_out_pairs_are_drawn_in_unseen():
    drawn = [{(t.category, t.tint) for t in make_scene("unseen", i, 16).things} & HELD_OUT for i in range(150)]
    assert set().union(*drawn) == HELD_OUT
    assert all(drawn)


def test_categories_and_tints():
    assert len(categories()) >= 40
    assert list(categories()) == sorted(set(categories()))
    for category in categories():
        assert set(allowed_tints(category)) <= TINTS.keys()
        assert len(allowed_tints(category)) >= 2
    assert "red" not in allowed_tints("apple")  # the natural colour
    drawn = {t.category for i in range(150) for t in make_scene("train", i, 16).things}
    assert drawn == set(categories())


@pytest.mark.parametrize("tint", TINTS)
def test_a_tint_gives_its_hue_and_keeps_the_shape(tint):
    from skimage.color import rgb2hsv

    plain, tinted = np.asarray(sprite("cat")), np.asarray(sprite("cat", tint))
    np.testing.assert_array_equal(tinted[..., 3], plain[..., 3])
    hue, saturation, value = rgb2hsv(tinted[tinted[..., 3] > 128][None, :, :3])[0].T
    coloured = (saturation > 0.4) & (value > 0.3)
    away = np.abs(np.median(hue[coloured]) - TINTS[tint])
    assert min(away, 1 - away) < 0.02
    assert coloured.mean() > 0.5


@pytest.mark.parametrize(
    ("size", "word"), [(SMALL, "small"), (SMALL + 0.01, None), (LARGE - 0.01, None), (LARGE, "large")]
)
def test_size_words(size, word):
    assert Thing("cat", None, size, 0.5, 0.5).size_word == word


def test_half_of_the_scenes_hold_two_of_a_kind():
    twins = [
        len({t.category for t in s.things}) < len(s.things) for s in (make_scene("train", i, 16) for i in range(200))
    ]
    assert 0.35 < np.mean(twins) < 0.65


def test_closeups_show_one_large_thing_partly_on_black():
    shown = [make_scene("closeup", i, 32) for i in range(100)]
    assert all(len(s.things) == 1 and 0.35 <= s.things[0].size <= 0.95 for s in shown)
    black = [s.image[~s.masks[0]].mean() < 20 for s in shown]
    assert 0.35 < np.mean(black) < 0.65


@pytest.mark.parametrize("side", [16, 64, 128])
def test_things_do_not_depend_on_the_side(side):
    scene = make_scene("val", 5, side)
    assert scene.things == make_scene("val", 5).things
    assert scene.image.shape == (side, side, 3)
