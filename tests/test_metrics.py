import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from refdiff_lite.metrics import areas, bootstrap, iou, mean_iou, overall_iou, precision_at


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
