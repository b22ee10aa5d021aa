"""Checks of lesson 8: one of an interval, three of bugs to repair."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from . import Check, CheckFailed, Guess

guess_ahead = Guess("who is ahead", "abcd")


def _samples() -> list[tuple]:
    """IoUs of two methods over images with one to five sentences each, and redrawn sets of images."""
    rng = np.random.default_rng(0)
    cases = []
    for count, draws, methods in ((6, 40, (0.3, 0.5)), (9, 75, (0.7, 0.6))):
        sizes = rng.integers(1, 6, count)
        images = np.repeat(rng.permutation(100)[:count], sizes)
        luck = np.repeat(rng.normal(0, 0.25, count), sizes)
        a, b = (np.clip(m + luck + rng.normal(0, 0.1, len(images)), 0, 1) for m in methods)
        cases.append((a, b, images, rng.choice(np.unique(images), (draws, count))))
    return cases


Interval = Callable[..., tuple[float, float]]


def _interval(statistic: Callable[..., float], ends: tuple[float, float] = (2.5, 97.5)) -> Interval:
    def interval(a: np.ndarray, b: np.ndarray, images: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
        low, high = np.percentile([statistic(b - a, images, line) for line in draws], ends)
        return float(low), float(high)

    return interval


def _mean(change: np.ndarray, images: np.ndarray, line: np.ndarray) -> float:
    times = Counter(line.tolist())
    return float(np.average(change, weights=[times[i] for i in images.tolist()]))


def _once(change: np.ndarray, images: np.ndarray, line: np.ndarray) -> float:
    return float(change[np.isin(images, line)].mean())


def _of_means(change: np.ndarray, images: np.ndarray, line: np.ndarray) -> float:
    return float(np.mean([change[images == i].mean() for i in line]))


def _from_two(a: np.ndarray, b: np.ndarray, images: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """Two separate intervals, set against each other."""
    (a_low, a_high), (b_low, b_high) = (_interval(_mean)(np.zeros_like(x), x, images, draws) for x in (a, b))
    return b_low - a_high, b_high - a_low


check_paired_interval = Check(
    _interval(_mean),
    {
        "an image that was drawn twice counts twice: np.isin keeps it once": _interval(_once),
        "that is a mean of image means: images with more sentences have more weight in the mean over sentences": _interval(
            _of_means
        ),
        "those are two intervals set against each other: take the difference of each sentence first, then draw": _from_two,
        "the difference is b minus a": lambda a, b, images, draws: _interval(_mean)(b, a, images, draws),
        "that is the middle 90 %: 2.5 % are left out on each side": _interval(_mean, (5, 95)),
    },
    "paired and by image: what is hard for both methods cancels, and luck is not counted twice",
    cases=_samples,
)


class _Model:
    """A model that is asked (ref, sentence), and refuses to be asked twice for the same."""

    def __init__(self) -> None:
        self.asked: set[tuple[int, str]] = set()

    def __call__(self, ref: int, sentence: str) -> str:
        if (ref, sentence) in self.asked:
            raise CheckFailed(
                f"the model was asked twice for {sentence!r} in ref {ref}: keep the cache, and look before you ask"
            )
        self.asked.add((ref, sentence))
        return f"mask of {sentence} in {ref}"


def _by(key: Callable[[tuple], object]) -> Callable[[list, Callable], list]:
    """An evaluation with a cache under this key; it asks a model of its own, so that the student's is asked by nobody else."""

    def evaluate(requests: list[tuple], answer: Callable) -> list:
        cache: dict = {}
        answer = _Model()
        for request in requests:
            if key(request) not in cache:
                cache[key(request)] = answer(*request)
        return [cache[key(request)] for request in requests]

    return evaluate


_REQUESTS = [(7, "left dog"), (7, "the brown dog"), (8, "left dog"), (7, "left dog"), (8, "the cat"), (9, "the cat")]

check_cache = Check(
    _by(lambda request: request),
    {
        "the key is still the ref: every further sentence of it gets the first one's answer": _by(
            lambda request: request[0]
        ),
        "the key is the sentence alone: two images may both have a 'left dog'": _by(lambda request: request[1]),
    },
    "a key holds everything that the answer depends on: the ref, the sentence, and in real life the settings too",
    cases=lambda: [(_REQUESTS, _Model()), (_REQUESTS[::-1], _Model())],
)


def _filters() -> list[tuple]:
    """Scores near 0, large ones, and ones far below any constant that one might think of."""
    cases = [
        ([-0.12, -0.05, -0.30], [1, 1, 0]),
        ([0.4, 0.9, 0.1, 0.7], [1, 0, 1, 1]),
        ([-2.0, -3.0, 1.0, -9.0, 0.5], [0, 1, 0, 1, 0]),
        ([-5e3, -4e12, -3e12, -7e12], [0, 1, 0, 1]),
    ]
    return [(np.array(scores), np.array(keep, bool)) for scores, keep in cases]


check_best_kept = Check(
    lambda scores, keep: int(np.where(keep, scores, -np.inf).argmax()),
    {
        "a dropped mask still wins with 0 where all others are negative: no finite score is low enough": (
            lambda scores, keep: int((scores * keep).argmax())
        ),
        "-10 is low only beside these scores: what can never win, for scores of any size?": (
            lambda scores, keep: int(np.where(keep, scores, -10).argmax())
        ),
        "that counts among the kept ones: the index in the full list is asked for": (
            lambda scores, keep: int(scores[keep].argmax())
        ),
        "nothing is dropped: keep is not used": lambda scores, keep: int(scores.argmax()),
    },
    "dropped means minus infinity, or not in the list at all",
    cases=_filters,
)

_SIDES = ("left", "right")


def _cues(sentence: str, places_only: bool = True) -> list[str]:
    words = sentence.split()
    after = [*words[1:], ""]
    return [w for w, then in zip(words, after, strict=True) if w in _SIDES and not (places_only and then == "of")]


_SENTENCES = (
    "the bright cup",
    "left of the dog",
    "cup on the left",
    "right cup left of the dog",
    "the cup",
    "leftover cup",
    "right cup under the left lamp",
    "left cup by the right wall",
    "the cup on the right",
    "cup to the right of the left lamp",
)

check_cue = Check(
    lambda sentence: (*_cues(sentence), "none")[0],
    {
        "'right' is found in 'bright', 'left' in 'leftover': compare whole words": (
            lambda sentence: next((w for w in _SIDES if w in sentence.replace(f"{w} of", "")), "none")
        ),
        "'left of the dog' relates two things: a word that 'of' follows is no place in the picture": (
            lambda sentence: (*_cues(sentence, places_only=False), "none")[0]
        ),
        "a substring, and relations count as places: both bugs are still there": (
            lambda sentence: "left" if "left" in sentence else "right" if "right" in sentence else "none"
        ),
        "left is looked for before right: the one that comes first in the sentence wins": (
            lambda sentence: next((w for w in _SIDES if w in _cues(sentence)), "none")
        ),
        "the last cue wins: stop at the first": lambda sentence: ("none", *_cues(sentence))[-1],
    },
    "whole words, and places only; the library's parser knows top and bottom too",
    cases=[(sentence,) for sentence in _SENTENCES],
)
