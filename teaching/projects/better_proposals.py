"""Project 2 · Better proposals: what no mask shows, no score can choose.

The bundled generators find objects by colour. They miss what has the ground's colour and join what touches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refdiff_lite.datasets import Sample
from refdiff_lite.evaluation.metrics import iou
from refdiff_lite.proposals import felzenszwalb, grouping

from .yardstick import Measured, compare, run

METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "felzenszwalb": lambda image: felzenszwalb(image).numpy(),
    "grouping": lambda image: grouping(image).numpy(),
    # yours: picture (H, W, 3) uint8 -> masks (N, H, W) bool
}


def measure(samples: list[Sample]) -> Measured:
    """IoU of every object with the proposal that fits it best; also the share above 0.9 and the masks an image."""
    images: list[int] = []
    values: dict[str, list[float]] = {name: [] for name in METHODS}
    counts: dict[str, list[int]] = {name: [] for name in METHODS}
    for sample in samples:
        image, truths = sample.image(), sample.masks
        images += [sample.image_id] * len(truths)
        for name, method in METHODS.items():
            masks = method(image)
            values[name] += [max((iou(m, truth) for m in masks), default=0.0) for truth in truths]
            counts[name].append(len(masks))
    told = {"metric": "mean IoU of the best proposal"} | compare(values, images)
    for name, cell in told["methods"].items():
        cell["found at 0.9"] = round(float(np.mean(np.asarray(values[name]) >= 0.9)), 4)
        cell["masks an image"] = round(float(np.mean(counts[name])), 2)
    return told


if __name__ == "__main__":
    run(measure)
