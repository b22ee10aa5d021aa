"""Checks of lesson 7."""

import numpy as np
import torch

from .. import fusion
from . import Check


def _maps() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(5, 6, generator=generator), torch.rand(3, 5, 6, generator=generator) > 0.6) for _ in range(2)]


check_generative_score = Check(
    fusion.generative_score,
    {
        "that is the mean inside alone: a map that is bright everywhere would score high; subtract the mean outside": (
            lambda c, masks: torch.stack([c[m].mean() for m in masks])
        ),
        "those are sums: large masks would win by size; take means": (
            lambda c, masks: torch.stack([c[m].sum() - c[~m].sum() for m in masks])
        ),
        "you subtract the mean of the whole map; S_G subtracts the mean of what is outside": (
            lambda c, masks: torch.stack([c[m].mean() - c.mean() for m in masks])
        ),
    },
    "S_G asks for contrast: bright inside and dark outside",
    cases=_maps,
)

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


def _rows() -> list[tuple]:
    rng = np.random.default_rng(0)
    rows = [(rng.random(4), rng.random(4), int(rng.integers(4))) for _ in range(40)]
    return [(rows, alpha) for alpha in (0.0, 0.1, 0.5, 0.8)]


def _share(rows: list[tuple], alpha: float, best: str = "argmax") -> float:
    return float(np.mean([getattr(alpha * g + (1 - alpha) * d, best)() == right for g, d, right in rows]))


check_accuracy = Check(
    _share,
    {
        "alpha weighs S_G, and 1 - alpha weighs S_D: yours are exchanged": lambda rows, alpha: _share(rows, 1 - alpha),
        "that is the number of hits: divide by the number of sentences": (
            lambda rows, alpha: _share(rows, alpha) * len(rows)
        ),
        "that takes the worst proposal: argmax": lambda rows, alpha: _share(rows, alpha, "argmin"),
    },
    "the networks ran once; every further alpha costs a sum and an argmax",
    cases=_rows,
)
