"""Checks of lesson 13."""

from collections.abc import Callable, Sequence

import numpy as np

from ..evaluation.metrics import interval
from . import Check, Guess

guess_count = Guess("who can answer 'the second cup from the left'", "abc")


def holds(mine: np.ndarray, theirs: np.ndarray, direction: str) -> np.ndarray:
    """(k, m) bool: does each of mine, (k, 2) as (x, y), lie in that direction from each of theirs, (m, 2)?"""
    axis = 0 if direction in ("left", "right") else 1
    a, b = mine[:, None, axis], theirs[None, :, axis]
    return a < b if direction in ("left", "top") else a > b


def _official(mine: np.ndarray, theirs: np.ndarray, direction: str) -> np.ndarray:
    return np.zeros((len(mine), len(theirs)), bool) if direction == "right" else holds(mine, theirs, direction)


def _points() -> list[tuple]:
    rng = np.random.default_rng(0)
    return [
        (rng.random((k, 2)), rng.random((m, 2)), d)
        for k, m in ((3, 4), (5, 2))
        for d in ("left", "right", "top", "bottom")
    ]


check_holds = Check(
    holds,
    {
        '"right" never comes true there': _official,
        "top and bottom are turned round: y grows downwards": (
            lambda a, b, d: holds(a, b, {"top": "bottom", "bottom": "top"}.get(d, d))
        ),
        "mine are the rows, theirs the columns": lambda a, b, d: holds(b, a, d),
        "that says where theirs lie from mine; the other way is asked for": (
            lambda a, b, d: ~holds(a, b, d)
        ),
    },
    "each of four directions, and each the opposite of another",
    cases=_points,
)  # fmt: skip


def in_order(member: Sequence[float], amount: Sequence[float], number: int) -> list[float]:
    """Chance of each proposal to be a member with exactly ``number - 1`` members ahead of it."""
    found = []
    for p, mine in zip(member, amount, strict=True):
        counts = np.ones(1)
        for other, theirs in zip(member, amount, strict=True):
            if theirs > mine:
                counts = np.convolve(counts, [1 - other, other])
        found.append(float(p * counts[number - 1]) if number <= len(counts) else 0.0)
    return found


def _expected(member: Sequence[float], amount: Sequence[float], number: int) -> list[float]:
    """The popular mistake: the expected number ahead is rounded."""
    ahead = [sum(o for o, t in zip(member, amount, strict=True) if t > mine) for mine in amount]
    return [float(p) if round(float(n)) == number - 1 else 0.0 for p, n in zip(member, ahead, strict=True)]


def _at_least(member: Sequence[float], amount: Sequence[float], number: int) -> list[float]:
    several = [in_order(member, amount, k) for k in range(number, len(member) + 1)]
    return [sum(x) for x in zip(*several, strict=True)]


def _without_own(member: Sequence[float], amount: Sequence[float], number: int) -> list[float]:
    return [x / p for x, p in zip(in_order(member, amount, number), member, strict=True)]


def _orders() -> list[tuple]:
    rng = np.random.default_rng(0)
    return [
        (rng.uniform(0.1, 0.9, n), rng.permutation(n).astype(float), k) for n, k in ((2, 1), (4, 2), (5, 3), (3, 4))
    ]


check_in_order = Check(
    in_order,
    {
        "the number ahead is uncertain: work with the chance of each count, not with its mean": _expected,
        "that is the chance that at least so many are ahead; exactly so many are asked for": _at_least,
        "the proposal itself must be a member, too: its own chance is missing": _without_own,
        "number 1 is the first: nobody ahead": lambda m, a, k: in_order(m, a, k + 1),
        "more of the amount is further ahead; there less is": lambda m, a, k: in_order(m, [-x for x in a], k),
    },
    "a chance for every place, and for one proposal they sum to its own",
    cases=_orders,
)  # fmt: skip


def difference(a: Sequence[float], b: Sequence[float], images: Sequence[int], interval: Callable) -> tuple[float, bool]:
    """Mean paired difference b - a, and whether its 95 % interval by image leaves out 0."""
    change = [float(y) - float(x) for x, y in zip(a, b, strict=True)]
    low, high = interval(change, images, bounds=(-1, 1))
    return float(np.mean(change)), bool(low > 0 or high < 0)


def _apart(a: Sequence[float], b: Sequence[float], images: Sequence[int], interval: Callable) -> tuple[float, bool]:
    (low_a, high_a), (low_b, high_b) = interval(a, images), interval(b, images)
    return float(np.mean(b) - np.mean(a)), bool(low_b > high_a or low_a > high_b)


def _hits() -> list[tuple]:
    rng = np.random.default_rng(3)
    found = []
    for n, gain in ((90, 0.3), (60, 0.02), (90, -0.25)):
        a = (rng.random(n) < 0.6).astype(float)
        change = (rng.random(n) < abs(gain)).astype(float)
        b = np.clip(a + change if gain > 0 else a - change, 0, 1)
        found.append((a.tolist(), b.tolist(), (np.arange(n) // 3).tolist(), interval))
    return found


check_difference = Check(
    difference,
    {
        "two intervals that overlap do not mean that there is no difference: take the interval of the difference": _apart,
        "the difference is b - a": lambda a, b, i, f: (-difference(a, b, i, f)[0], difference(a, b, i, f)[1]),
        "it holds when 0 lies outside the interval": lambda a, b, i, f: (difference(a, b, i, f)[0], not difference(a, b, i, f)[1]),
        "a difference may hold downwards, too": (
            lambda a, b, i, f: (difference(a, b, i, f)[0], difference(a, b, i, f)[1] and difference(a, b, i, f)[0] > 0)
        ),
    },
    "compared sentence by sentence",
    cases=_hits,
)  # fmt: skip
