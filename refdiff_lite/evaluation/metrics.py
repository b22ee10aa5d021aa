"""Lesson 8: IoU, its two averages that the literature mixes up, precision at a threshold, and intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

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
    """95 % interval of a statistic, drawing whole images: sentences of one image are not independent.

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


def ratio_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    clusters: Sequence[int],
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """:func:`bootstrap` of a ratio of sums, from each image's sums alone, so that large sets take no longer.

    mIoU, Pr@X and accuracy are such ratios with a denominator of 1 for each sentence, oIoU one of areas.
    """
    _, where = np.unique(np.asarray(clusters), return_inverse=True)
    top, bottom = (np.bincount(where, np.asarray(v, float)) for v in (numerators, denominators))
    times = _draws(len(top), draws, seed)
    low, high = np.percentile((times @ top) / np.maximum(1, times @ bottom), (2.5, 97.5))
    return float(low), float(high)


@lru_cache(maxsize=8)
def _draws(groups: int, draws: int, seed: int) -> np.ndarray:
    """How often each of the groups is drawn in each draw, (draws, groups)."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), draws).astype(float)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 images; equal ones have about 138."""
    error = np.square(a.astype(float) - b.astype(float)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))
