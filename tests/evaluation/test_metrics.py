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
    interval,
    iou,
    mean_iou,
    overall_iou,
    precision_at,
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
    assert interval(j, shuffled, v) == pytest.approx(interval(i, images, u))
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


def test_the_interval_of_many_images_is_the_bootstrap_s():
    rng = np.random.default_rng(0)
    unions, images = rng.integers(50, 500, 1000), rng.integers(0, 200, 1000)
    parts = rng.uniform(size=1000) * unions
    fast = interval(parts, images, unions)
    slow = bootstrap(np.stack([parts, unions], 1), images, lambda r: r[:, 0].sum() / r[:, 1].sum(), 4000)
    assert fast == pytest.approx(slow, abs=0.004)
    assert fast[0] < parts.sum() / unions.sum() < fast[1]


@settings(max_examples=200, deadline=None)
@given(sentences(), st.sampled_from([(0, 1), (-1, 1), (0, 3)]))
def test_the_interval_holds_the_mean_lies_in_the_bounds_and_has_a_width(drawn, bounds):
    values, images = drawn
    low, high = interval(values, images, bounds=bounds)
    assert bounds[0] - 1e-9 <= low <= np.mean(values) <= high <= bounds[1] + 1e-9
    assert high - low > 1e-4
    mirrored = interval([sum(bounds) - v for v in values], images, bounds=bounds)
    assert mirrored == pytest.approx((sum(bounds) - high, sum(bounds) - low), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_the_interval_of_a_ratio_holds_it(drawn):
    i, u, images = drawn
    low, high = interval(i, images, u)
    assert 0 <= low <= overall_iou(i, u) <= high <= 1
    assert low < high


@pytest.mark.parametrize(
    ("values", "images", "expected"),
    [
        ([1] * 10, range(10), (10 / (10 + 1.959964**2), 1)),  # Wilson's for 10 of 10
        ([1] * 40, [0, 1] * 20, (2 / (2 + 1.959964**2), 1)),  # 40 sentences of 2 images are not 40 images
        ([1, 1], [0, 0], (1 / (1 + 1.959964**2), 1)),
        ([0] * 10, range(10), (0, 1 - 10 / (10 + 1.959964**2))),
        ([0.4, 0.4], [0, 1], (0.4 * 2 / (2 + 1.959964**2), 0.4 + 0.6 * 1.959964**2 / (2 + 1.959964**2))),
        ([], [], (0, 1)),
    ],
)
def test_where_all_images_are_alike_their_number_counts(values, images, expected):
    assert interval(values, list(images)) == pytest.approx(expected)


def test_independent_sentences_have_wilson_s_interval():
    hits = [1] * 450 + [0] * 50
    low, high = interval(hits, range(500))
    p, n, z = 0.9, 500, 1.96
    centre, half = (p + z * z / 2 / n), z * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert (low, high) == pytest.approx(
        ((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)), abs=3e-4
    )


def test_sentences_of_one_image_bring_no_certainty():
    hits = np.random.default_rng(0).uniform(size=30) < 0.8
    assert interval(np.repeat(hits, 20), np.repeat(np.arange(30), 20)) == pytest.approx(interval(hits, range(30)))


@pytest.mark.parametrize(
    ("images", "share", "at_least"),
    [(2, 0.7, 0.92), (4, 0.9, 0.92), (20, 0.95, 0.92), (20, 0.3, 0.92), (100, 0.98, 0.87)],
)
def test_about_19_of_20_intervals_hold_the_truth(images, share, at_least):
    """Hits of sentences that share images. The bootstrap holds it in 40 to 90 %; near 1 both are somewhat too sure."""
    rng, held = np.random.default_rng(0), {interval: 0, bootstrap: 0}
    for _ in range(200):
        ids = np.repeat(np.arange(images), rng.integers(1, 10, images))
        hits = rng.uniform(size=len(ids)) < rng.beta(2 * share, 2 * (1 - share), images)[ids]
        for method, options in ((interval, {}), (bootstrap, {"draws": 200})):
            low, high = method(hits, ids, **options)
            held[method] += low <= share <= high
    assert held[interval] >= at_least * 200
    assert held[interval] > held[bootstrap]


@pytest.mark.parametrize(
    ("values", "bounds"), [([0.5, 1.5], (0, 1)), ([-0.5, 1], (0, 1)), ([30.1], (0, 1)), ([-2], (-1, 1))]
)
def test_numbers_without_bounds_are_refused(values, bounds):
    with pytest.raises(ValueError, match=r"must lie in .* take bootstrap"):
        interval(values, range(len(values)), bounds=bounds)
