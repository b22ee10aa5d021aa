"""Checks of lesson 11."""

from collections.abc import Iterable

import numpy as np

from . import Check, Guess

guess_settled = Guess("after which share of the steps the map of a thing is nearly what it ends as", "abc")
guess_missing = Guess("how often a thing that was asked for is not painted", "abc")


def words_share(shares: np.ndarray, words: list[int]) -> float:
    """Mean share of a pixel's attention that goes to the words: (h, w, tokens) shares, places of the words."""
    return float(np.asarray(shares)[..., words].sum(-1).mean())


def _shares() -> list[tuple]:
    rng = np.random.default_rng(0)
    made = []
    for h, w, tokens, words in ((2, 3, 6, [1, 2]), (4, 4, 9, [1, 2, 5])):
        x = rng.random((h, w, tokens))
        made.append((x / x.sum(-1, keepdims=True), words))
    return made


check_words_share = Check(
    words_share,
    {
        "that is the share of everything else; the words' own is asked for": lambda s, words: 1 - words_share(s, words),
        "add up the words' shares of a pixel before you take the mean over pixels": (
            lambda s, words: float(s[..., words].mean())
        ),
        "that is a sum over all pixels; take their mean": lambda s, words: float(s[..., words].sum()),
        "the places of the words are given: not every word begins at 1": (
            lambda s, words: float(s[..., : len(words)].sum(-1).mean())
        ),
    },
    "how much of the attention goes to words at all",
    cases=_shares,
)


def running_mean(maps: Iterable[np.ndarray]) -> np.ndarray:
    """The mean of maps that come one after another, holding one map only."""
    mean = None
    for count, m in enumerate(maps, start=1):
        mean = m if mean is None else mean + (m - mean) / count
    return np.asarray(mean)


def _halves(maps: Iterable[np.ndarray]) -> np.ndarray:
    mean = None
    for m in maps:
        mean = m if mean is None else (mean + m) / 2
    return np.asarray(mean)


def _maps() -> list[tuple]:
    rng = np.random.default_rng(0)
    return [([rng.random((2, 3)) for _ in range(n)],) for n in (1, 3, 7)]


check_running_mean = Check(
    running_mean,
    {
        "the last map weighs a half there, and the first next to nothing: each must weigh the same": _halves,
        "that is the sum; divide by how many there were": lambda maps: np.sum(maps, 0),
        "that is the last map": lambda maps: maps[-1],
        "the count is one too high": lambda maps: np.sum(maps, 0) / (len(maps) + 1),
    },
    "the mean of all maps, and memory for one",
    cases=_maps,
)


def settled(likeness: list[float], level: float) -> int:
    """First step from which on a map stays at least this much like its end."""
    below = [i for i, x in enumerate(likeness) if x < level]
    return below[-1] + 1 if below else 0


check_settled = Check(
    settled,
    {
        "it falls below the level again after that: from which step on does it *stay*?": (
            lambda likeness, level: next(i for i, x in enumerate(likeness) if x >= level)
        ),
        "that is the last step below the level; the next one is the first that stays": (
            lambda likeness, level: settled(likeness, level) - 1
        ),
        "that counts the steps above the level; say which is the first": (
            lambda likeness, level: sum(x >= level for x in likeness)
        ),
        "steps count from 0": lambda likeness, level: settled(likeness, level) + 1,
    },
    "the step from which on a map no longer changes much",
    cases=[
        ([0.2, 0.95, 0.5, 0.91, 0.97, 1.0], 0.9),
        ([0.1, 0.4, 0.92, 0.8, 0.7, 0.99, 1.0], 0.9),
        ([0.95, 0.96, 1.0], 0.9),
    ],
)


def auc(there: list[float], missing: list[float]) -> float:
    """How often a number of the first list is larger than one of the second, over all pairs; a tie counts a half."""
    a, b = np.asarray(there)[:, None], np.asarray(missing)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


check_auc = Check(
    auc,
    {
        "that is how often the *missing* things have the larger number": lambda there, missing: auc(missing, there),
        "a tie counts a half": lambda there, missing: float((np.asarray(there)[:, None] > np.asarray(missing)).mean()),
        "a tie counts a half, not a whole": (
            lambda there, missing: float((np.asarray(there)[:, None] >= np.asarray(missing)).mean())
        ),
        "compare every number of the one with every number of the other, not the two means": (
            lambda there, missing: float(np.mean(there) > np.mean(missing))
        ),
    },
    "1 if every thing that is there has the larger number, one half if the number tells nothing",
    cases=[([3.0, 1.0, 2.0], [1.0, 0.5]), ([0.2, 0.2, 0.4], [0.2, 0.3, 0.1, 0.4]), ([1.0], [2.0, 3.0])],
)


def leaks(colour: np.ndarray, own: np.ndarray, other: np.ndarray) -> bool:
    """Whether a colour's map is more like the other thing's map than like its own thing's, by correlation."""
    like = [np.corrcoef(np.ravel(colour), np.ravel(m))[0, 1] for m in (own, other)]
    return bool(like[1] > like[0])


def _colours() -> list[tuple]:
    left, right = np.zeros((4, 6)), np.zeros((4, 6))
    left[1:3, :2], right[1:3, 4:] = 1, 1
    faint, strong = 0.1 * left + 0.02 * right, 0.5 + 0.01 * left + 0.1 * right
    # An own map that is bright everywhere wins every sum of products; one with a high peak wins every comparison of peaks.
    return [(faint, left, right), (faint, right, left), (strong, left + 3, right), (strong, 9 * left, right)]


check_leaks = Check(
    leaks,
    {
        "that says where the colour is at home; it leaks if it is more like the *other*": (
            lambda colour, own, other: not leaks(colour, own, other)
        ),
        "a sum of products favours maps that are bright all over: correlate": (
            lambda colour, own, other: bool((colour * other).sum() > (colour * own).sum())
        ),
        "peaks say how bright a map is, not where": lambda colour, own, other: bool(np.max(other) > np.max(own)),
        "compare with the maps of the two things, not with nothing": lambda colour, own, other: bool(
            np.max(colour) > 0.2
        ),
    },
    "a colour that attends like the wrong thing",
    cases=_colours,
)
