"""Project 4 · Nobody there: say that the picture does not hold what the words name.

RefCOCO asks only for what is there; gRefCOCO (arXiv 2306.00968) asks for what is not as well. Here every scene is asked
for its own kinds, and for as many that it lacks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refdiff_lite import RefDiff
from refdiff_lite.datasets import Sample
from refdiff_lite.result import Result
from refdiff_lite.toy.scenes import allowed_tints, categories

from .yardstick import Measured, auroc, compare_confidence, run


def _height(of: str) -> Callable[[Result], float]:
    return lambda result: float(result.scores[of].max()) if result.best is not None else 0.0


METHODS: dict[str, Callable[[Result], float]] = {
    "height of S_D": _height("S_D"),
    "height of S": _height("S"),
    "height of S_G": _height("S_G"),
    # yours: a Result -> how sure you are that the thing is there
}


class Question(NamedTuple):
    text: str
    sort: str
    """"there", "other kind" or "other colour"."""


def questions(sample: Sample) -> list[Question]:
    """What stands there, and for each of it a colour that it has not and a kind that the scene lacks.

    The draw hangs on the image alone, so that all methods are asked the same.
    """
    rng = np.random.default_rng(sample.image_id)
    things = {
        (a["category_id"], a["tint"])
        for a in _annotations(sample.path.parent.parent)
        if a["image_id"] == sample.image_id
    }
    found = []
    for category, tint in sorted(things, key=str):
        kind = categories()[category - 1]
        found.append(Question(f"{tint} {kind}" if tint else kind, "there"))
        if others := [t for t in allowed_tints(kind) if (category, t) not in things]:
            found.append(Question(f"{rng.choice(others)} {kind}", "other colour"))
        missing = [k for k in categories() if k not in sample.categories]
        found.append(Question(str(rng.choice(missing)), "other kind"))
    return found


@cache
def _annotations(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "instances.json").read_text())["annotations"]


def measure(samples: list[Sample]) -> Measured:
    """AUROC of each confidence for "the scene holds one", of the full method on Felzenszwalb's proposals."""
    model, sorts, images = RefDiff.from_preset("toy"), [], []
    confidence: dict[str, list[float]] = {name: [] for name in METHODS}
    for sample in samples:
        scene = model.set_image(sample.image())
        for question in questions(sample):
            result = scene.segment(question.text)
            for name, method in METHODS.items():
                confidence[name].append(method(result))
            sorts.append(question.sort)
            images.append(sample.image_id)
    sort = np.array(sorts)
    told = {"metric": "AUROC"} | compare_confidence(confidence, sort == "there", images)
    for name, cell in told["methods"].items():
        for other in ("other kind", "other colour"):
            some = np.isin(sort, ["there", other])
            cell[other] = round(auroc(np.asarray(confidence[name])[some], sort[some] == "there"), 4)
    return told


if __name__ == "__main__":
    run(measure)
