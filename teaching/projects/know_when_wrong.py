"""Project 3 · Know when it is wrong: a number for each answer that is high where the answer is right.

Ref-Diff always answers. Who uses the mask wants to know which answers to check by eye.
"""

from __future__ import annotations

from collections.abc import Callable

from refdiff_lite import RefDiff
from refdiff_lite.datasets import Sample
from refdiff_lite.evaluation.metrics import iou
from refdiff_lite.result import Result

from .yardstick import Measured, compare_confidence, run


def margin(result: Result) -> float:
    """How far S of the chosen proposal lies above the second best; 1 where there is no second."""
    s = result.scores["S"].sort(descending=True).values
    return float(s[0] - s[1]) if len(s) > 1 else 1.0


def agreement(result: Result) -> float:
    """Do diffusion and CLIP, asked alone, choose the same proposal?"""
    s_g, s_d = result.scores["S_G"], result.scores["S_D"]
    return float(len(s_g) > 0 and s_g.argmax() == s_d.argmax())


METHODS: dict[str, Callable[[Result], float]] = {
    "height of S": lambda result: float(result.scores["S"].max()) if result.best is not None else 0.0,
    "margin of S": margin,
    "S_G and S_D agree": agreement,
    # yours: a Result, which holds scores, maps, proposals and picture -> confidence
}


def measure(samples: list[Sample]) -> Measured:
    """AUROC of each confidence for "IoU at least 0.5", of the full method on Felzenszwalb's proposals."""
    model, right, images = RefDiff.from_preset("toy"), [], []
    confidence: dict[str, list[float]] = {name: [] for name in METHODS}
    for sample in samples:
        scene, truths = model.set_image(sample.image()), sample.masks
        for record in sample.records:
            result = scene.segment(record.text)
            for name, method in METHODS.items():
                confidence[name].append(method(result))
            right.append(iou(result.mask, truths[record.target]) >= 0.5)
            images.append(sample.image_id)
    return {"metric": "AUROC"} | compare_confidence(confidence, right, images)


if __name__ == "__main__":
    run(measure)
