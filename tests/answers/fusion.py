"""Other answers to the exercises of lesson 7."""

from itertools import pairwise

import numpy as np
import torch


def score_loop(c, masks):
    found = []
    for mask in masks:
        inside, outside = c[mask], c[~mask]
        found.append((float(inside.mean()) if len(inside) else 0.0) - (float(outside.mean()) if len(outside) else 0.0))
    return found


def score_numpy(c, masks):
    c, masks = c.numpy().astype(float), masks.numpy()
    inside, outside = masks.sum((1, 2)), (~masks).sum((1, 2))
    return (c * masks).sum((1, 2)) / np.maximum(inside, 1) - (c * ~masks).sum((1, 2)) / np.maximum(outside, 1)


def score_nan(c, masks):
    means = [torch.where(m, c, torch.nan).flatten(1).nanmean(1).nan_to_num() for m in (masks, ~masks)]
    return means[0] - means[1]


def tie_solve(g_a, d_a, g_b, d_b):
    return np.linalg.solve([[g_a - d_a - g_b + d_b]], [d_b - d_a])[0]


def tie_bisect(g_a, d_a, g_b, d_b):
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        ahead = middle * g_a + (1 - middle) * d_a > middle * g_b + (1 - middle) * d_b
        low, high = (low, middle) if ahead else (middle, high)
    return torch.tensor(low)


def tie_ratio(g_a, d_a, g_b, d_b):
    ratio = np.float64(d_b - d_a) / (g_a - g_b)
    return ratio / (1 + ratio)


def share(rows, alpha):
    return sum(np.argmax(alpha * np.asarray(g) + (1 - alpha) * np.asarray(d)) == k for g, d, k in rows) / len(rows)


def report_loop(val, test, alphas):
    best, top = None, -1
    for alpha in alphas:
        if share(val, alpha) > top:
            best, top = alpha, share(val, alpha)
    return [best, share(test, best)]


def report_numpy(val, test, alphas):
    table = np.array([share(val, a) for a in alphas])
    return np.array([alphas[table.argmax()], share(test, alphas[table.argmax()])])


def report_torch(val, test, alphas):
    def right(rows, alpha):
        hits = [torch.lerp(torch.tensor(d), torch.tensor(g), alpha).argmax() == k for g, d, k in rows]
        return torch.stack(hits).double().mean()

    alpha = sorted(alphas, key=lambda a: -right(val, a))[0]
    return alpha, right(test, alpha)


def plateau_intervals(rows):
    """By the winning interval of each right proposal, and a sweep over their ends."""
    wins = []
    for g, d, k in rows:
        low, high = 0.0, 1.0
        for i in range(len(g)):
            start, end = d[k] - d[i], g[k] - g[i]
            if start < 0 and end < 0:
                high = -1.0
            elif start < 0:
                low = max(low, start / (start - end))
            elif end < 0:
                high = min(high, start / (start - end))
        if low < high:
            wins.append((low, high))
    ends = sorted({0.0, 1.0, *(x for win in wins for x in win)})
    steps = []
    for low, high in pairwise(ends):
        count = sum(a <= low and high <= b for a, b in wins)
        steps.append([low, high, count / len(rows)])
    top = max(s[2] for s in steps)
    merged = []
    for step in steps:
        if merged and merged[-1][1] == step[0] and merged[-1][2] == step[2]:
            merged[-1][1] = step[1]
        else:
            merged.append(list(step))
    return sorted((s for s in merged if s[2] == top), key=lambda s: s[1] - s[0])[-1]


def plateau_tuple(rows):
    return tuple(np.float64(x) for x in plateau_intervals(rows))


def plateau_tensor(rows):
    return torch.tensor(plateau_intervals(rows), dtype=torch.float64)


def plateau_first_sentence(rows):
    return plateau_intervals(rows[:1])


RIGHT = {
    "check_generative_score": [score_loop, score_numpy, score_nan],
    "guess_winner": ["C"],
    "check_tie": [tie_solve, tie_bisect, tie_ratio],
    "check_honest_report": [report_loop, report_numpy, report_torch],
    "check_best_plateau": [plateau_tuple, plateau_intervals, plateau_tensor],
}
WRONG = {
    "check_generative_score": [
        lambda c, masks: -torch.tensor(score_loop(c, masks)),
        lambda c, masks: torch.stack([c[m].mean() - c[~m].mean() for m in masks]),  # nan where a side is empty
    ],
    "check_tie": [lambda g_a, d_a, g_b, d_b: 0.1, lambda g_a, d_a, g_b, d_b: 0.5],
    "check_honest_report": [
        lambda val, test, alphas: share(test, alphas[0]),
        lambda val, test, alphas: (alphas[0], share(test, alphas[0])),
    ],
    "check_best_plateau": [plateau_first_sentence, lambda rows: (0.0, 1.0, share(rows, 0.5))],
}
