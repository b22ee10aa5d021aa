"""Other right answers to lesson 0's exercises, and wrong ones."""

import numpy as np
import torch


def iou_by_logic(mask, truth):
    return np.logical_and(mask, truth).sum() / np.logical_or(mask, truth).sum()


def iou_by_counting(mask, truth):
    a, b = mask.astype(int), truth.astype(int)
    shared = (a * b).sum()
    return shared / (a.sum() + b.sum() - shared)


def iou_as_tensor(mask, truth):
    a, b = torch.from_numpy(mask).bool(), torch.from_numpy(truth).bool()
    return (a & b).sum() / (a | b).sum()


def mixed(s_g, s_d, alpha):
    return alpha * s_g + (1 - alpha) * s_d


def upper_edge(s_g, s_d):
    """By halving: between two winners that differ lies a turning point, or two."""
    g, d = s_g.numpy().astype(float), s_d.numpy().astype(float)

    def walk(a, b):
        i, j = (int(np.argmax(x * g + (1 - x) * d)) for x in (a, b))
        if i == j:
            return []
        meet = (d[i] - d[j]) / ((d[i] - d[j]) + (g[j] - g[i]))
        top = int(np.argmax(meet * g + (1 - meet) * d))
        if top in (i, j) or b - a < 1e-12:
            return [meet]
        return [*walk(a, meet), *walk(meet, b)]

    return walk(0.0, 1.0)


def stepping(s_g, s_d):
    g, d = s_g.tolist(), s_d.tolist()
    at, now, found = 0.0, int(np.argmax(d)), []
    while at < 1:
        meets = [
            ((d[now] - d[i]) / ((d[now] - d[i]) + (g[i] - g[now])), i)
            for i in range(len(g))
            if g[i] - d[i] > g[now] - d[now]
        ]
        later = [m for m in meets if at < m[0] < 1]
        if not later:
            break
        at, now = min(later)
        found.append(at)
    return tuple(found)


RIGHT = {
    "guess_changes": [2],
    "check_iou": [iou_by_logic, iou_by_counting, iou_as_tensor],
    "check_head": [
        {"head": "cup", "cues": ["right"]},
        {"head": "Cup", "cues": ("right")},
        {"head": " cup", "cues": np.array(["right"])},
    ],
    "check_choose": [
        lambda s_g, s_d, alpha: mixed(s_g, s_d, alpha).argmax(),
        lambda s_g, s_d, alpha: np.argmax(mixed(s_g, s_d, alpha).numpy()),
        lambda s_g, s_d, alpha: sorted(range(len(s_g)), key=lambda i: -float(mixed(s_g, s_d, alpha)[i]))[0],
        lambda s_g, s_d, alpha: int(torch.lerp(s_d, s_g, alpha).topk(1).indices[0]),
    ],
    "check_turning_points": [upper_edge, stepping, lambda g, d: np.array(upper_edge(g, d))],
}
WRONG = {
    "check_iou": [
        lambda m, t: (m & t).sum() / m.sum(),
        lambda m, t: 2 * (m > 0)[t > 0].sum() / (m.sum() + t.sum()),  # Dice
        lambda m, t: (m & t).sum() / m.size,
    ],
    "check_head": [
        {"head": "cup", "cues": ("left",)},
        {"head": "the cup", "cues": ("right",)},
        "cup",
        {"head": "cup"},
    ],
    "check_choose": [
        lambda s_g, s_d, alpha: int((s_g + s_d).argmax()),
        lambda s_g, s_d, alpha: int(s_d.argmax()),
        lambda s_g, s_d, alpha: int((s_g * alpha * s_d * (1 - alpha)).argmax()),
    ],
    "check_turning_points": [
        lambda g, d: [],
        lambda g, d: [0.0, *upper_edge(g, d), 1.0],
        lambda g, d: upper_edge(g, d)[::-1],
        lambda g, d: len(upper_edge(g, d)),
    ],
}
