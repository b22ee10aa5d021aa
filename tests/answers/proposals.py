"""Other right answers to lesson 5's exercises, and wrong ones."""

from itertools import groupby

import numpy as np
import torch


def iou_of(a, b):
    w, h = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    shared = max(0.0, float(w)) * max(0.0, float(h))
    areas = [float((x[2] - x[0]) * (x[3] - x[1])) for x in (a, b)]
    return shared / (sum(areas) - shared)


def suppress_by_list(boxes, scores, threshold):
    left, kept = scores.argsort(descending=True).tolist(), []
    while left:
        kept.append(left.pop(0))
        left = [i for i in left if iou_of(boxes[kept[-1]], boxes[i]) <= threshold]
    return kept


def suppress_by_flags(boxes, scores, threshold):
    dropped, kept = np.zeros(len(boxes), bool), []
    for i in np.argsort(-scores.numpy()):
        if not dropped[i]:
            kept.append(i)
            dropped |= np.array([iou_of(boxes[i], b) > threshold for b in boxes])
    return np.array(kept)


def cut_by_within(c):
    """The cut with the least variance left within the groups."""
    heights = sorted(set(c.flatten().tolist()))[1:]
    x = c.numpy().astype(float)

    def within(h):
        inside = x >= h
        return inside.mean() * x[inside].var() + (1 - inside.mean()) * x[~inside].var()

    return min(heights, key=within)


def cut_by_sums(c):
    values, counts = np.unique(c.numpy().astype(np.float64), return_counts=True)
    p = 1 - np.cumsum(counts)[:-1] / c.numel()
    below = np.cumsum(values * counts)[:-1]
    total = float((values * counts).sum())
    gap = (total - below) / (p * c.numel()) - below / ((1 - p) * c.numel())
    return np.float64(values[1:][np.argmax(p * (1 - p) * gap**2)])


def runs_by_groupby(mask):
    groups = [(value, len(list(same))) for value, same in groupby(mask.T.ravel().tolist())]
    return ([0] if groups[0][0] else []) + [n for _, n in groups]


def runs_by_diff(mask):
    flat = np.asfortranarray(mask).ravel(order="F").astype(int)
    return np.diff([0, *(np.flatnonzero(np.diff(flat, prepend=0))), flat.size])


def variance_by_parts(c, mask):
    p = float(mask.double().mean())
    within = p * float(c[mask].double().var(correction=0)) + (1 - p) * float(c[~mask].double().var(correction=0))
    return float(c.double().var(correction=0)) - within


RIGHT = {
    "guess_pixels": [14],
    "check_recall": [
        lambda table, threshold: (table >= threshold).any(0).double().mean(),
        lambda table, threshold: np.mean(table.numpy().max(axis=0) >= threshold),
        lambda table, threshold: sum(max(column) >= threshold for column in table.T.tolist()) / table.shape[1],
    ],
    "check_otsu": [
        variance_by_parts,
        lambda c, mask: np.float32(variance_by_parts(c, mask)),
        lambda c, mask: torch.tensor(variance_by_parts(c, mask)),
    ],
    "check_best_cut": [cut_by_within, cut_by_sums, lambda c: torch.tensor(cut_by_sums(c))],
    "check_suppress": [suppress_by_list, suppress_by_flags, lambda *args: torch.tensor(suppress_by_list(*args))],
    "check_run_lengths": [
        runs_by_groupby,
        runs_by_diff,
        lambda mask: list(runs_by_diff(mask)),
        lambda mask: tuple(runs_by_groupby(mask)),
    ],
}
WRONG = {
    "check_recall": [
        lambda table, threshold: (table.amax(0) > threshold).sum(),
        lambda table, threshold: (table.mean(0) >= threshold).float().mean(),
        lambda table, threshold: (table.amax(0) < threshold).float().mean(),
    ],
    "check_otsu": [lambda c, mask: c.var(), lambda c, mask: 2 * variance_by_parts(c, mask)],
    "check_best_cut": [lambda c: float(c.mean()), lambda c: float(c.median()), lambda c: 0.5],
    "check_suppress": [
        lambda boxes, scores, threshold: suppress_by_list(boxes, scores, 1 - threshold),
        lambda boxes, scores, threshold: suppress_by_list(boxes, scores, threshold)[:1],
        lambda boxes, scores, threshold: list(range(len(boxes))),
    ],
    "check_run_lengths": [
        lambda mask: runs_by_groupby(mask.T),
        lambda mask: [n for n in runs_by_groupby(mask) if n],
        lambda mask: np.cumsum(runs_by_groupby(mask)),
    ],
}
