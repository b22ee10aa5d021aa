"""Project 1 · A mask without proposals: from the word map and the picture alone to the object's pixels.

Cutting the map at one height leaves a blob that knows nothing of the object's border. The picture knows it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from skimage.filters import threshold_otsu

from refdiff_lite import RefDiff
from refdiff_lite.datasets import Sample
from refdiff_lite.evaluation.metrics import iou
from refdiff_lite.expression import parse
from refdiff_lite.scene import SENTENCES

from .yardstick import Measured, compare, run

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Word map c (h, w) in [0, 1] and picture (h, w, 3) uint8 -> mask (h, w) bool."""


def otsu(c: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Cut where the two sides differ most (Otsu 1979)."""
    return c >= threshold_otsu(c)


METHODS: dict[str, Method] = {
    "two standard deviations up": lambda c, image: c >= c.mean() + 2 * c.std(),  # first: the one to beat
    "Otsu": otsu,
    "half of the peak": lambda c, image: c >= 0.5,
    # yours: a function of c and image
}


def measure(samples: list[Sample]) -> Measured:
    """IoU of every method's mask with the object that is named."""
    model, images = RefDiff.from_preset("toy"), []
    values: dict[str, list[float]] = {name: [] for name in METHODS}
    for sample in samples:
        scene, truths = model.set_image(sample.image()), sample.masks
        records = [(r, parse(r.text)) for r in sample.records]
        for start in range(0, len(records), SENTENCES):
            some = records[start : start + SENTENCES]
            scene.compute_word_maps([e for _, e in some])
            for record, e in some:
                c = scene.word_map(e).numpy()
                for name, method in METHODS.items():
                    values[name].append(iou(scene.to_full(method(c, scene.image)), truths[record.target]))
                images.append(sample.image_id)
    return {"metric": "mIoU"} | compare(values, images)


if __name__ == "__main__":
    run(measure)
