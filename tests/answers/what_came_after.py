"""Other right answers to lesson 13's exercises, and wrong ones."""

from itertools import product

import numpy as np
import torch


def holds_by_loops(mine, theirs, direction):
    test = {
        "left": lambda a, b: a[0] < b[0],
        "right": lambda a, b: a[0] > b[0],
        "top": lambda a, b: a[1] < b[1],
        "bottom": lambda a, b: a[1] > b[1],
    }[direction]
    return [[bool(test(a, b)) for b in theirs] for a in mine]


def order_by_worlds(member, amount, number):
    """Every way that the proposals may be members or not, with its chance."""
    found = np.zeros(len(member))
    for world in product((0, 1), repeat=len(member)):
        weight = np.prod([p if on else 1 - p for p, on in zip(member, world, strict=True)])
        for i, on in enumerate(world):
            ahead = sum(w for w, a in zip(world, amount, strict=True) if a > amount[i])
            if on and ahead == number - 1:
                found[i] += weight
    return found


def difference_by_numpy(a, b, images, interval):
    change = np.subtract(b, a)
    low, high = interval(change, images, bounds=(-1, 1))
    return np.mean(change), not low <= 0 <= high


RIGHT = {
    "guess_count": ["C)"],
    "check_holds": [
        holds_by_loops,
        lambda a, b, d: np.array(holds_by_loops(a, b, d)),
        lambda a, b, d: torch.tensor(holds_by_loops(a, b, d)),
    ],
    "check_in_order": [
        order_by_worlds,
        lambda m, a, k: torch.from_numpy(order_by_worlds(m, a, k)),
        lambda m, a, k: order_by_worlds(m, a, k).tolist(),
    ],
    "check_difference": [
        difference_by_numpy,
        lambda a, b, i, f: list(difference_by_numpy(a, b, i, f)),
        lambda a, b, i, f: (torch.tensor(np.mean(b) - np.mean(a)), difference_by_numpy(a, b, i, f)[1]),
    ],
}
WRONG = {
    "check_holds": [
        lambda a, b, d: a[:, None, 0] < b[None, :, 0],
        lambda a, b, d: np.array(holds_by_loops(a, b, d)).T,
        lambda a, b, d: np.ones((len(a), len(b)), bool),
        lambda a, b, d: np.array(holds_by_loops(a, b, "left" if d == "right" else d)),
    ],
    "check_in_order": [
        lambda m, a, k: list(m),
        lambda m, a, k: [float(np.argsort(np.argsort(-np.asarray(a)))[i] == k - 1) for i in range(len(m))],
        lambda m, a, k: (order_by_worlds(m, a, k) / max(order_by_worlds(m, a, k).sum(), 1e-9)).tolist(),
        lambda m, a, k: [0.0] * len(m),
    ],
    "check_difference": [
        lambda a, b, i, f: np.mean(b) - np.mean(a),
        lambda a, b, i, f: (np.mean(b) - np.mean(a), True),
        lambda a, b, i, f: (np.mean(b) - np.mean(a), False),
        lambda a, b, i, f: (sum(b) - sum(a), difference_by_numpy(a, b, i, f)[1]),
    ],
}
