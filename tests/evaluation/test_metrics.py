import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from refdiff_lite.evaluation.metrics import (
    THRESHOLDS,
    areas,
    bootstrap,
    iou,
    mean_iou,
    overall_iou,
    precision_at,
    ratio_interval,
)


def square(y, x, side, size=10):
    out = np.zeros((size, size), bool)
    out[y : y + side, x : x + side] = True
    return out


@pytest.mark.parametrize(
    ("a", "b", "intersection", "union", "expected"),
    [
        (square(0, 0, 4), square(0, 0, 4), 16, 16, 1),
        (square(0, 0, 4), square(5, 5, 4), 0, 32, 0),
        (square(0, 0, 4), square(2, 2, 4), 4, 28, 4 / 28),
        (square(0, 0, 2), square(0, 0, 4), 4, 16, 0.25),
        (square(0, 0, 0), square(0, 0, 4), 0, 16, 0),
        (square(0, 0, 0), square(0, 0, 0), 0, 0, 0),
    ],
)
def test_two_masks(a, b, intersection, union, expected):
    assert areas(a, b) == areas(b, a) == (intersection, union)
    assert iou(a, b) == pytest.approx(expected)


def test_masks_of_two_sizes():
    with pytest.raises(ValueError, match=r"\(10, 10\) and \(12, 12\)"):
        iou(square(0, 0, 2), square(0, 0, 2, 12))


masks = arrays(bool, (6, 9))


@settings(max_examples=40, deadline=None)
@given(masks, masks)
def test_iou_is_pycocotools(a, b):
    encode = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in (a, b)]
    assert iou(a, b) == pytest.approx(coco_mask.iou(encode[:1], encode[1:], [0])[0, 0])


def test_overall_and_mean_iou_disagree():
    intersections, unions = [900, 1], [1000, 10]  # a large object found, a small one missed
    assert overall_iou(intersections, unions) == pytest.approx(901 / 1010)
    assert mean_iou(intersections, unions) == pytest.approx((0.9 + 0.1) / 2)


def test_precision_counts_the_threshold_itself():
    intersections, unions = [5, 4, 9, 0], [10, 10, 10, 0]
    assert [precision_at(x, intersections, unions) for x in (0.3, 0.5, 0.7, 0.95)] == [0.75, 0.5, 0.25, 0]


def test_no_sentences():
    assert (overall_iou([], []), mean_iou([], []), precision_at(0.5, [], [])) == (0, 0, 0)


@st.composite
def sentences(draw):
    n = draw(st.integers(1, 20))
    values = draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))
    return values, draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))


@settings(max_examples=25, deadline=None)
@given(sentences())
def test_interval_lies_within_the_values(drawn):
    low, high = bootstrap(*drawn, draws=30)
    assert min(drawn[0]) - 1e-9 <= low <= high <= max(drawn[0]) + 1e-9


def test_interval_is_repeatable_and_holds_the_mean():
    rng = np.random.default_rng(0)
    values, images = rng.uniform(size=200), np.repeat(np.arange(50), 4)
    low, high = bootstrap(values, images)
    assert (low, high) == bootstrap(values, images)
    assert (low, high) != bootstrap(values, images, seed=1)
    assert low < values.mean() < high
    assert 0.03 < high - low < 0.15  # 4 × the standard error, 0.29 / sqrt(200)


def test_whole_images_are_drawn():
    """Sentences that repeat one another bring no certainty; taken for independent they would."""
    values = np.repeat(np.random.default_rng(0).uniform(size=20), 30)
    low, high = bootstrap(values, np.repeat(np.arange(20), 30))
    wrong = bootstrap(values, np.arange(600))
    assert high - low > 3 * (wrong[1] - wrong[0])


def test_interval_of_another_statistic():
    rows = [(1, 2), (3, 4), (100, 100)]
    low, high = bootstrap(rows, [0, 1, 2], lambda r: r[:, 0].sum() / r[:, 1].sum())
    assert 0.5 <= low < high == 1
    assert bootstrap([0.5, 0.5], [0, 1]) == (0.5, 0.5)


@st.composite
def pairs(draw):
    """Intersections and unions of some sentences, and the image of each."""
    n = draw(st.integers(1, 20))
    unions = draw(st.lists(st.integers(0, 50), min_size=n, max_size=n))
    return [draw(st.integers(0, u)) for u in unions], unions, draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))


@settings(max_examples=50, deadline=None)
@given(masks, masks)
def test_iou_is_symmetric_bounded_and_1_only_for_equals(a, b):
    assert iou(a, b) == iou(b, a)
    assert 0 <= iou(a, b) <= 1
    assert (iou(a, b) == 1) == (a.any() and (a == b).all())
    assert iou(a, np.zeros_like(a)) == 0


@settings(max_examples=30, deadline=None)
@given(masks, st.integers(0, 5), st.integers(0, 8))
def test_one_pixel_more_or_less(a, y, x):
    """One pixel of the union's size is what IoU moves by."""
    b = a.copy()
    b[y, x] ^= True
    union = int((a | b).sum())
    assert iou(a, b) == pytest.approx((union - 1) / union)


@settings(max_examples=50, deadline=None)
@given(pairs(), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_shards_add_up(drawn, rng):
    i, u, images = drawn
    rows = list(zip(i, u, images, strict=True))
    rng.shuffle(rows)
    j, v, shuffled = (list(x) for x in zip(*rows, strict=True))
    for metric in (overall_iou, mean_iou, lambda a, b: precision_at(0.5, a, b)):
        assert metric(j, v) == pytest.approx(metric(i, u))
        assert 0 <= metric(i, u) <= 1
    assert ratio_interval(j, v, shuffled, 50) == pytest.approx(ratio_interval(i, u, images, 50))
    cut = rng.randint(0, len(i))
    parts = [(i[:cut], u[:cut]), (i[cut:], u[cut:])]
    assert sum(mean_iou(a, b) * len(a) for a, b in parts) == pytest.approx(mean_iou(i, u) * len(i))
    assert sum(overall_iou(a, b) * max(1, sum(b)) for a, b in parts if sum(b)) == pytest.approx(
        overall_iou(i, u) * max(1, sum(u))
    )


@settings(max_examples=50, deadline=None)
@given(pairs())
def test_precision_falls_with_the_threshold(drawn):
    i, u, _ = drawn
    found = [precision_at(x, i, u) for x in (0.0, 0.3, *THRESHOLDS, 1.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1


def test_ratio_interval_is_the_bootstrap():
    """Two ways to draw the same thing: whole rows, or every image's sums."""
    rng = np.random.default_rng(0)
    unions, images = rng.integers(50, 500, 400), rng.integers(0, 60, 400)
    parts = rng.uniform(size=400) * unions
    fast = ratio_interval(parts, unions, images, 4000)
    slow = bootstrap(np.stack([parts, unions], 1), images, lambda r: r[:, 0].sum() / r[:, 1].sum(), 4000)
    assert fast == pytest.approx(slow, abs=0.004)
    assert fast[0] < parts.sum() / unions.sum() < fast[1]
