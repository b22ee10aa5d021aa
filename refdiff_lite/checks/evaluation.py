"""Checks of lesson 8: one of a measure, six of bugs to find."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..evaluation import metrics
from ..expression import parse
from . import Check


def _masks() -> list[tuple]:
    rng = np.random.default_rng(0)
    shapes = ((4, 5), (30, 20), (9, 9))
    return [([rng.random(s) > 0.4 for s in shapes], [rng.random(s) > 0.5 for s in shapes]) for _ in range(2)]


def _areas(masks: list, truths: list) -> tuple[Any, Any]:
    shared, union = zip(*(metrics.areas(m, t) for m, t in zip(masks, truths, strict=True)), strict=True)
    return np.array(shared), np.array(union)


check_overall_iou = Check(
    lambda masks, truths: metrics.overall_iou(*_areas(masks, truths)),
    {
        "that is mIoU, the mean of the ratios: sum the intersections and the unions first, then divide once": (
            lambda masks, truths: metrics.mean_iou(*_areas(masks, truths))
        ),
        "you divide by the area of the truths: wrong pixels of the mask belong to the union, too": (
            lambda masks, truths: float(_areas(masks, truths)[0].sum() / sum(t.sum() for t in truths))
        ),
    },
    "sum first, divide once: large objects count more",
    cases=_masks,
)


check_both_means = Check(
    lambda i, u: (metrics.overall_iou(i, u), metrics.mean_iou(i, u)),
    {
        "they are exchanged: oIoU first": lambda i, u: (metrics.mean_iou(i, u), metrics.overall_iou(i, u)),
        "your mIoU is weighted by the unions, and so it is oIoU once more: all sentences weigh alike": (
            lambda i, u: (metrics.overall_iou(i, u), float(np.average(i / u, weights=u)))
        ),
    },
    "two names, two numbers: print both, always",
    cases=lambda: [_areas(*case) for case in _masks()],
)


def _faded(png: np.ndarray, sentences: list[str]) -> list[float]:
    return [float(png.sum() / 255.0 ** (k + 1)) for k in range(len(sentences))]


def _pngs() -> list[tuple]:
    rng = np.random.default_rng(0)
    return [((rng.random((6, 8)) > p).astype(np.uint8) * 255, ["cup", "left cup", "red cup"]) for p in (0.3, 0.7)]


check_object_areas = Check(
    lambda png, sentences: [int((png > 0).sum())] * len(sentences),
    {
        "the mask still fades: it is divided by 255 again for every further sentence": _faded,
        "255 is one pixel, not 255 of them: binarise with > 0 before you sum": (
            lambda png, sentences: [int(png.sum(dtype=int))] * len(sentences)
        ),
    },
    "binarise once, where the mask is read; then nothing can fade",
    cases=_pngs,
)


def _by(key: Callable[[tuple], object]) -> Callable[[list, Callable], list]:
    """An evaluation with a cache under this key."""

    def evaluate(requests: list[tuple], answer: Callable) -> list:
        cache: dict = {}
        for request in requests:
            if key(request) not in cache:
                cache[key(request)] = answer(*request)
        return [cache[key(request)] for request in requests]

    return evaluate


_REQUESTS = [(7, "left dog"), (7, "the brown dog"), (8, "left dog"), (7, "left dog"), (8, "the cat")]

check_cache = Check(
    _by(lambda request: request),
    {
        "the key is still the ref: every further sentence of it gets the first one's answer": _by(
            lambda request: request[0]
        ),
        "the key is the sentence alone: two images may both have a 'left dog'": _by(lambda request: request[1]),
    },
    "a key holds everything that the answer depends on: the ref, the sentence, and in real life the settings too",
    cases=[(_REQUESTS, lambda ref, sentence: f"mask of {sentence} in {ref}"), (_REQUESTS[::-1], lambda *r: str(r))],
)


def _filters() -> list[tuple]:
    cases = [([-0.12, -0.05, -0.30], [1, 1, 0]), ([0.4, 0.9, 0.1], [1, 0, 1]), ([-2.0, -3.0, 1.0], [0, 1, 0])]
    return [(np.array(scores), np.array(keep, bool)) for scores, keep in cases]


check_best_kept = Check(
    lambda scores, keep: int(np.where(keep, scores, -np.inf).argmax()),
    {
        "a dropped mask still wins with 0 where all others are negative: give it -inf": (
            lambda scores, keep: int((scores * keep).argmax())
        ),
        "that counts among the kept ones: the index in the full list is asked for": (
            lambda scores, keep: int(scores[keep].argmax())
        ),
        "nothing is dropped: keep is not used": lambda scores, keep: int(scores.argmax()),
    },
    "dropped means minus infinity, or not in the list at all",
    cases=_filters,
)


def _words(sentence: str) -> str:
    """Whole words, but relations too."""
    return next((w for w in sentence.split() if w in ("left", "right")), "none")


_SENTENCES = (
    "the bright cup",
    "left of the dog",
    "cup on the left",
    "right cup left of the dog",
    "the cup",
    "leftover cup",
)

check_cue = Check(
    lambda sentence: (*(c for c in parse(sentence).cues if c in ("left", "right")), "none")[0],
    {
        "'right' is found in 'bright', 'left' in 'leftover': compare whole words": (
            lambda sentence: next((w for w in ("left", "right") if w in sentence.replace(f"{w} of", "")), "none")
        ),
        "'left of the dog' relates two things: a word that 'of' follows is no place in the picture": _words,
        "a substring, and relations count as places: both bugs are still there": (
            lambda sentence: "left" if "left" in sentence else "right" if "right" in sentence else "none"
        ),
    },
    "whole words, and places only; the library's parser knows top and bottom too",
    cases=[(sentence,) for sentence in _SENTENCES],
)

check_to_rgb = Check(
    lambda bgr: bgr[..., ::-1],
    {
        "the picture is upside down: you turned the first axis, the rows": lambda bgr: bgr[::-1],
        "the picture is mirrored: you turned the second axis, the columns": lambda bgr: bgr[:, ::-1],
        "all three axes are turned: colour is the last one alone": lambda bgr: bgr[::-1, ::-1, ::-1],
    },
    "one axis, and it is the last; better still, read images with a library that gives RGB",
    cases=lambda: [(np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8),)],
)
