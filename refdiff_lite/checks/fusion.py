"""Checks of lesson 7."""

from itertools import pairwise

import numpy as np
import torch

from .. import fusion
from . import Check, Guess


def _maps() -> list[tuple]:
    """Maps of several shapes; in the last case one mask covers everything and one nothing."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for n, h, w in ((3, 5, 6), (2, 7, 4), (4, 3, 8)):
        cases.append((torch.rand(h, w, generator=generator), torch.rand(n, h, w, generator=generator) > 0.6))
    cases[-1][1][0], cases[-1][1][1] = True, False
    return cases


def _means(c: torch.Tensor, masks: torch.Tensor, outside: str) -> torch.Tensor:
    """Mean inside minus another mean: of the rest, of everything, or nothing."""
    other = {"rest": lambda m: c[~m].mean(), "all": lambda m: c.mean(), "none": lambda m: torch.tensor(0.0)}[outside]
    return torch.stack([c[m].mean().nan_to_num() - other(m).nan_to_num() for m in masks])


check_generative_score = Check(
    fusion.generative_score,
    {
        "that is the mean inside alone: a map that is bright everywhere would score high; subtract the mean outside": (
            lambda c, masks: _means(c, masks, "none")
        ),
        "those are sums: large masks would win by size; take means": (
            lambda c, masks: torch.stack([c[m].sum() - c[~m].sum() for m in masks])
        ),
        "you subtract the mean of the whole map; S_G subtracts the mean of what is outside": (
            lambda c, masks: _means(c, masks, "all")
        ),
    },
    "S_G asks for contrast: bright inside and dark outside",
    cases=_maps,
)

guess_winner = Guess("the winner at alpha = 0.08", "abc")

check_tie = Check(
    lambda g_a, d_a, g_b, d_b: float((d_b - d_a) / (g_a - g_b + d_b - d_a)),
    {
        "that is 1 - alpha: alpha weighs S_G": lambda g_a, d_a, g_b, d_b: float((g_a - g_b) / (g_a - g_b + d_b - d_a)),
        "that is alpha / (1 - alpha), the ratio of the gaps: solve for alpha": (
            lambda g_a, d_a, g_b, d_b: float((d_b - d_a) / (g_a - g_b))
        ),
    },
    "a small gap in S_D needs only a small alpha to be overturned",
    cases=[(0.55, 0.24, 0.10, 0.28), (0.8, 0.1, 0.2, 0.4), (0.3, -0.1, -0.2, 0.9)],
)

Rows = list[tuple[np.ndarray, np.ndarray, int]]


def _right(rows: Rows, alpha: float) -> float:
    return float(np.mean([int((alpha * g + (1 - alpha) * d).argmax()) == k for g, d, k in rows]))


def _report(choose: Rows, test: Rows, alphas: list[float], exchanged: bool = False) -> tuple[float, float]:
    weight = (lambda a: 1 - a) if exchanged else (lambda a: a)
    alpha = max(alphas, key=lambda a: _right(choose, weight(a)))
    return alpha, _right(test, weight(alpha))


def _sentences(seed: int, count: int) -> Rows:
    """Sentences of two to six proposals; the right one is likely, not certain, to be high in both scores."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        n = int(rng.integers(2, 7))
        g, d, k = rng.normal(size=n), rng.normal(size=n), int(rng.integers(n))
        g[k] += 0.8
        d[k] += 0.8
        rows.append((g, d, k))
    return rows


def _splits() -> list[tuple]:
    """(val, test, alphas), with one best alpha on val and another on test."""
    return [
        (_sentences(7, 60), _sentences(49, 45), [0.0, 0.3, 0.7]),
        (_sentences(33, 90), _sentences(40, 70), [0.1, 0.5, 0.9, 1.0]),
    ]


check_honest_report = Check(
    _report,
    {
        "alpha is still chosen on test: what is reported was picked because it looked best there": (
            lambda val, test, alphas: _report(test, test, alphas)
        ),
        "you report the accuracy on val, on which alpha was chosen: report test": (
            lambda val, test, alphas: _report(val, val, alphas)
        ),
        "test takes part in the choice: choose on val alone": (
            lambda val, test, alphas: _report(val + test, test, alphas)
        ),
        "alpha weighs S_G, and 1 - alpha weighs S_D: yours are exchanged": (
            lambda val, test, alphas: _report(val, test, alphas, exchanged=True)
        ),
    },
    "test was looked at once, after everything had been chosen",
    cases=_splits,
)


def _steps(rows: Rows, merge: bool = True) -> list[tuple[float, float, float]]:
    """(low, high, share right) of all ranges of alpha between the crossings of two lines."""
    cuts = {0.0, 1.0}
    for g, d, k in rows:
        for start, end in zip(d[k] - d, g[k] - g, strict=True):
            if start * end < 0:
                cuts.add(float(start / (start - end)))
    steps: list[tuple[float, float, float]] = []
    for low, high in pairwise(sorted(cuts)):
        share = _right(rows, (low + high) / 2)
        if merge and steps and steps[-1][2] == share:
            low = steps.pop()[0]
        steps.append((low, high, share))
    return steps


def best_plateau(rows: Rows) -> tuple[float, float, float]:
    """The widest range of alpha with the highest share right, and that share."""
    return max(_steps(rows), key=lambda s: (s[2], s[1] - s[0]))


def _on_a_grid(rows: Rows) -> tuple[float, float, float]:
    alphas = np.linspace(0, 1, 101)
    shares = [_right(rows, a) for a in alphas]
    best = [a for a, s in zip(alphas, shares, strict=True) if s == max(shares)]
    return float(best[0]), float(best[-1]), max(shares)


def _exchanged(rows: Rows) -> tuple[float, float, float]:
    low, high, share = best_plateau(rows)
    return 1 - high, 1 - low, share


check_best_plateau = Check(
    best_plateau,
    {
        "those are points of a grid: the ends of the plateau are crossings of two lines": _on_a_grid,
        "a crossing that changes no accuracy does not end the plateau: merge equal neighbours": (
            lambda rows: max(_steps(rows, merge=False), key=lambda s: (s[2], s[1] - s[0]))
        ),
        "several ranges share the highest accuracy: return the widest": (
            lambda rows: max(_steps(rows), key=lambda s: s[2])
        ),
        "alpha weighs S_G, and 1 - alpha weighs S_D: yours are exchanged": _exchanged,
    },
    "no grid, no luck: between two crossings nothing can change",
    cases=lambda: [(_sentences(seed, count),) for seed, count in ((17, 8), (2, 15), (28, 30), (20, 12))],
)
