"""Other right answers to lesson 12's exercises, and wrong ones."""

import numpy as np
import torch


def by_loops(q, kp, kw):
    out = np.zeros((len(q), len(kw)))
    for i, one in enumerate(np.asarray(q)):
        weights = np.exp([float(one @ np.asarray(k)) / len(one) ** 0.5 for k in (*kp, *kw)])
        out[i] = weights[len(kp) :] / weights.sum()
    return out


def luck_by_loops(val, test):
    falls = []
    for v, t in zip(val, test, strict=True):
        shares = [row.mean() for row in v]
        best = max(range(len(shares)), key=lambda i: shares[i])
        falls.append(shares[best] - t[best].mean())
    return sum(falls) / len(falls)


RIGHT = {
    "guess_share": ["(C)"],
    "check_pixels_to_words": [
        by_loops,
        lambda q, kp, kw: torch.softmax(torch.cat([q @ kp.T, q @ kw.T], 1) / q.shape[1] ** 0.5, 1)[:, -len(kw) :],
        lambda q, kp, kw: by_loops(q, kp, kw).tolist(),
    ],
    "check_quarter": [
        lambda a, n, first: np.roll(a, 0 if first else n, (0, 1))[n:, :n],
        lambda a, n, first: a[n:][:, :n] if first else a[: len(a) - n, len(a) - n :],
        lambda a, n, first: torch.from_numpy(a.copy())[n:, :n] if first else torch.from_numpy(a.copy())[:-n, -n:],
    ],
    "check_luck": [
        luck_by_loops,
        lambda v, t: np.float64(luck_by_loops(v, t)),
        lambda v, t: torch.tensor(luck_by_loops(v, t)),
    ],
}
WRONG = {
    "check_pixels_to_words": [
        lambda q, kp, kw: (q @ torch.cat([kp, kw]).T).softmax(0)[:, len(kp) :],
        lambda q, kp, kw: by_loops(q, kp, kw).T,
        lambda q, kp, kw: (q @ kw.T).softmax(-1),
        lambda q, kp, kw: torch.zeros(len(q), len(kw)),
    ],
    "check_quarter": [
        lambda a, n, first: a[:n, n:],
        lambda a, n, first: a[:n, :n],
        lambda a, n, first: a,
        lambda a, n, first: a[n:, n:],
    ],
    "check_luck": [
        lambda v, t: 0.0,
        lambda v, t: float(np.mean(v, -1).max() - np.mean(t, -1).max()),
        lambda v, t: float(np.mean(v, -1).max(1).mean()),
        lambda v, t: float((np.mean(v, -1).max(1) - np.mean(v)).mean()),
    ],
}
