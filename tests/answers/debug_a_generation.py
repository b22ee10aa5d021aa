"""Other right answers to lesson 11's exercises, and wrong ones."""

import numpy as np
import torch


def mean_by_sum(maps):
    total, count = 0, 0
    for m in maps:
        total, count = total + m, count + 1
    return total / count


def settled_backwards(likeness, level):
    step = len(likeness)
    while step and likeness[step - 1] >= level:
        step -= 1
    return step


def auc_by_loops(there, missing):
    wins = sum(1 if a > b else 0.5 if a == b else 0 for a in there for b in missing)
    return wins / (len(there) * len(missing))


def auc_by_ranks(there, missing):
    from scipy.stats import mannwhitneyu

    return mannwhitneyu(there, missing).statistic / (len(there) * len(missing))


def like(a, b):
    a, b = np.ravel(a) - np.mean(a), np.ravel(b) - np.mean(b)
    return a @ b / np.sqrt((a @ a) * (b @ b))


RIGHT = {
    "guess_settled": ["(B)"],
    "guess_missing": ["b"],
    "check_words_share": [
        lambda s, words: sum(s[..., k].mean() for k in words),
        lambda s, words: torch.from_numpy(s)[..., words].sum(-1).mean(),
        lambda s, words: np.mean([[sum(pixel[k] for k in words) for pixel in row] for row in s]),
    ],
    "check_running_mean": [
        mean_by_sum,
        lambda maps: np.stack(list(maps)).mean(0),
        lambda maps: torch.from_numpy(mean_by_sum(maps)),
    ],
    "check_settled": [
        settled_backwards,
        lambda x, level: next((i for i in range(len(x)) if min(x[i:]) >= level), len(x)),
        lambda x, level: np.int64(settled_backwards(x, level)),
    ],
    "check_auc": [auc_by_loops, auc_by_ranks, lambda a, b: np.float32(auc_by_loops(a, b))],
    "check_leaks": [
        lambda colour, own, other: like(colour, other) > like(colour, own),
        lambda colour, own, other: bool(np.corrcoef([np.ravel(m) for m in (colour, own, other)])[0].argsort()[1] == 2),
        lambda colour, own, other: torch.tensor(like(colour, other) > like(colour, own)),
    ],
}
WRONG = {
    "check_words_share": [
        lambda s, words: float(s[..., words[0]].mean()),
        lambda s, words: float(s[..., words].max(-1).mean()),
        lambda s, words: 1.0,
        lambda s, words: float(s[..., words].sum(-1).max()),
    ],
    "check_running_mean": [
        lambda maps: maps[0],
        lambda maps: np.median(np.stack(maps), 0),
        lambda maps: np.max(np.stack(maps), 0),
        lambda maps: float(np.mean(np.stack(maps))),
    ],
    "check_settled": [
        lambda x, level: 0,
        lambda x, level: len(x) - 1,
        lambda x, level: int(np.argmax(x)),
        lambda x, level: sum(v < level for v in x),
    ],
    "check_auc": [
        lambda a, b: float(np.mean(a) - np.mean(b)),
        lambda a, b: 0.5,
        lambda a, b: float(max(a) > max(b)),
        lambda a, b: float(np.mean([x > np.mean(b) for x in a])),
    ],
    "check_leaks": [
        lambda colour, own, other: True,
        lambda colour, own, other: False,
        lambda colour, own, other: like(own, other) > 0,
        lambda colour, own, other: colour.mean() < 0.5,
    ],
}
