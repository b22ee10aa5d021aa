"""What the projects share: scenes, fair comparison in pairs, and the command line.

A project is a module with ``measure(samples)``, which tells of every method its mean and its difference from the first.
A student adds a method to the end of the module's METHODS and runs ``python -m teaching.projects.NAME``: on val while
working, on test once, at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import typer
from scipy.stats import rankdata

from refdiff_lite.datasets import Sample
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.metrics import bootstrap, interval

Measured = dict[str, Any]


def compare(values: dict[str, Sequence[float]], images: Sequence[int]) -> Measured:
    """Mean of every method, and its difference from the first, in pairs; both with 95 % intervals by image.

    Args:
        values: for each method one number in [0, 1] a case, all in the same order. images: image of each case.
    """
    first = np.asarray(next(iter(values.values())), float)
    told: Measured = {"n": len(first), "images": len(set(images)), "methods": {}}
    for place, (name, some) in enumerate(values.items()):
        told["methods"][name] = {"value": round(float(np.mean(some)), 4), "interval": _rounded(interval(some, images))}
        if place:
            change = np.asarray(some, float) - first
            told["methods"][name] |= {
                "minus first": round(float(change.mean()), 4),
                "difference's interval": _rounded(interval(change, images, bounds=(-1, 1))),
            }
    return told


def auroc(confidence: np.ndarray, right: np.ndarray) -> float:
    """The chance that a right case is given more confidence than a wrong one; ties count as half.

    0.5 is guessing, and is what is returned where all cases are right or all are wrong.
    """
    right = np.asarray(right, bool)
    if right.all() or not right.any():
        return 0.5
    ranks, n = rankdata(confidence), int(right.sum())
    return float((ranks[right].sum() - n * (n + 1) / 2) / (n * (len(right) - n)))


def compare_confidence(
    confidence: dict[str, Sequence[float]], right: Sequence[bool], images: Sequence[int]
) -> Measured:
    """:func:`compare` for AUROC, which has no value a case: both intervals come from drawing whole images again."""
    first = next(iter(confidence.values()))
    told: Measured = {
        "n": len(right),
        "images": len(set(images)),
        "right": round(float(np.mean(right)), 4),
        "methods": {},
    }
    for place, (name, some) in enumerate(confidence.items()):
        rows = np.column_stack([some, first, np.asarray(right, float)])

        def change(r: np.ndarray) -> float:
            return auroc(r[:, 0], r[:, 2]) - auroc(r[:, 1], r[:, 2])

        told["methods"][name] = {
            "value": round(auroc(rows[:, 0], rows[:, 2]), 4),
            "interval": _rounded(bootstrap(rows, images, lambda r: auroc(r[:, 0], r[:, 2]), draws=500)),
        }
        if place:
            told["methods"][name] |= {
                "minus first": round(change(rows), 4),
                "difference's interval": _rounded(bootstrap(rows, images, change, draws=500)),
            }
    return told


def _rounded(pair: tuple[float, float]) -> list[float]:
    return [round(x, 4) for x in pair]


def run(measure: Callable[[list[Sample]], Measured]) -> None:
    """The command line of a project."""

    def main(
        split: Annotated[str, typer.Option(help="val while you work, test once at the end.")] = "val",
        images: Annotated[int | None, typer.Option(help="Only the first scenes, for a quick look.")] = None,
    ) -> None:
        typer.echo(json.dumps(measure(load_toyref(split, limit=images)), indent=1, ensure_ascii=False))

    typer.run(main)
