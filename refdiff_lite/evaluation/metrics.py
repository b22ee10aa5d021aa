"""Lesson 8: IoU, its two averages that the literature mixes up, precision at a threshold, and intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import stdtrit

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The X of Pr@X that the literature reports."""


def areas(mask: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """(intersection, union) in pixels of two (H, W) bool masks."""
    if mask.shape != truth.shape:
        raise ValueError(f"masks of {mask.shape} and {truth.shape} cannot be compared; bring both to the image's size")
    return int((mask & truth).sum()), int((mask | truth).sum())


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union in [0, 1]; 0 where both masks are empty."""
    intersection, union = areas(mask, truth)
    return intersection / union if union else 0.0


def overall_iou(intersections: Sequence[int], unions: Sequence[int]) -> float:
    """oIoU: sum of intersections over sum of unions, so large objects weigh more."""
    return float(np.sum(intersections) / max(1, np.sum(unions)))


def mean_iou(intersections: Sequence[int], unions: Sequence[int]) -> float:
    """mIoU: mean of the IoU of every sentence, so all sentences weigh alike."""
    i, u = np.asarray(intersections, float), np.asarray(unions, float)
    return float(np.mean(i / np.maximum(u, 1))) if len(i) else 0.0


def precision_at(threshold: float, intersections: Sequence[int], unions: Sequence[int]) -> float:
    """Pr@X: share of sentences whose IoU is at least X."""
    i, u = np.asarray(intersections, float), np.asarray(unions, float)
    return float(np.mean(i / np.maximum(u, 1) >= threshold)) if len(i) else 0.0


def bootstrap(
    values: Sequence[float] | Sequence[tuple[float, ...]],
    clusters: Sequence[int],
    statistic: Callable = np.mean,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of any statistic, drawing whole images: sentences of one image are not independent.

    Where all rows agree all draws do, and its width is 0, however few the rows: for shares see :func:`interval`.

    Args:
        values: (N,) or (N, k), one row per sentence. clusters: image of each sentence.
        statistic: function of the drawn rows.
    """
    rows, ids = np.asarray(values, float), np.asarray(clusters)
    groups = [np.flatnonzero(ids == c) for c in np.unique(ids)]
    rng = np.random.default_rng(seed)
    found = [
        statistic(rows[np.concatenate([groups[g] for g in rng.integers(0, len(groups), len(groups))])])
        for _ in range(draws)
    ]
    return float(np.percentile(found, 2.5)), float(np.percentile(found, 97.5))


def interval(
    values: Sequence[float],
    clusters: Sequence[int],
    weights: Sequence[float] | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """95 % interval of a mean of bounded numbers, such as accuracy or mIoU; it holds the mean and is never of width 0.

    Wilson's score interval, clustered by image. Its number of sentences is the effective one: how many independent
    sentences would leave the mean as uncertain as the differences between images say it is. Few images count by
    Student's t. Where no image differs from the others, or there is one alone, these differences say nothing. Then
    Wilson's bound for so many images of one kind says how large a share of another kind may be, and that share may
    have any values within the bounds. Wilson 1927; effective size as in Korn and Graubard 1998.

    Args:
        values: (N,), one per sentence. clusters: image of each sentence.
        weights: denominators of a ratio of sums, for oIoU (its values are the intersections); 1 for a mean.
        bounds: what a value (over its weight) can be: (-1, 1) for differences of paired shares.

    Raises:
        ValueError: a value lies outside the bounds.
    """
    parts = np.asarray(values, float)
    wholes = np.ones(len(parts)) if weights is None else np.asarray(weights, float)
    least, most = bounds
    if not ((least * wholes - 1e-9 <= parts) & (parts <= most * wholes + 1e-9)).all():
        raise ValueError(f"all values must lie in {bounds}; for numbers without bounds take bootstrap")
    _, where = np.unique(np.asarray(clusters), return_inverse=True)
    top, bottom = np.bincount(where, parts), np.bincount(where, wholes)
    images, total = len(top), bottom.sum() or 1.0
    mean = top.sum() / total
    share = (mean - least) / (most - least)
    variance = 0.0
    if images > 1:
        residuals = (top - mean * bottom) / total / (most - least)
        variance = images / (images - 1) * float(np.square(residuals).sum())
    if variance < 1e-12:  # 1e-6 in the mean: rounding alone
        unlike = 1 - images / (images + _NORMAL**2)
        low, high = share * (1 - unlike), share + (1 - share) * unlike
    else:
        low, high = _wilson(share, share * (1 - share) / variance, float(stdtrit(images - 1, 0.975)))
    return float(min(mean, least + low * (most - least))), float(max(mean, least + high * (most - least)))


_NORMAL = 1.959964
"""97.5 % of a normal distribution lie below."""


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval of a share among n independent trials."""
    centre = share + z**2 / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 images; equal ones have about 138."""
    error = np.square(a.astype(float) - b.astype(float)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))
