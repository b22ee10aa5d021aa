"""Project 5 · Half the work: the same answers for fewer operations.

Most of a sentence's cost goes into crops for CLIP and into the networks' pass over the picture. Which of it decides?
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from refdiff_lite import RefDiff
from refdiff_lite.config import RefDiffConfig
from refdiff_lite.datasets import Sample
from refdiff_lite.evaluation.metrics import iou
from refdiff_lite.expression import parse
from refdiff_lite.fusion import choose
from refdiff_lite.scene import Scene

from .yardstick import Measured, compare, run

TOY = RefDiffConfig.toy()
COUNTED = 12
"""Scenes on which operations are counted."""


Method = Callable[[Scene, str], np.ndarray]


def full(scene: Scene, text: str) -> np.ndarray:
    return scene.segment(text, "full").mask


def clip_alone(scene: Scene, text: str) -> np.ndarray:
    """Variant ds without the diffusion model's pass, which it does not need."""
    proposals = scene.proposals("felzenszwalb")
    best = choose(scene.discriminative_scores(parse(text), proposals))
    return np.zeros(scene.full_size, bool) if best is None else scene.to_full(proposals.masks[best])


METHODS: dict[str, tuple[RefDiffConfig, Method]] = {
    "full": (TOY, full),
    "CLIP alone": (TOY, clip_alone),
    "diffusion alone": (TOY, lambda scene, text: scene.segment(text, "gs").mask),
    "full, half the picture's side": (replace(TOY, side_factor=TOY.side_factor / 2), full),
    # yours: a config, and a function of scene and text -> mask (H, W) bool
}


def measure(samples: list[Sample]) -> Measured:
    """mIoU on Felzenszwalb's proposals, and floating-point operations a sentence, the picture's own work shared out."""
    model, images = RefDiff.from_preset("toy"), []
    values: dict[str, list[float]] = {name: [] for name in METHODS}
    flops: dict[str, list[float]] = {name: [] for name in METHODS}
    for k, sample in enumerate(samples):
        image, truths = sample.image(), sample.masks
        images += [sample.image_id] * len(sample.records)
        for name, (config, method) in METHODS.items():
            scene = Scene(RefDiff(model.networks, config), image)
            counter = FlopCounterMode(display=False)
            with counter if k < COUNTED else nullcontext():
                masks = [method(scene, record.text) for record in sample.records]
            values[name] += [iou(m, truths[r.target]) for m, r in zip(masks, sample.records, strict=True)]
            if k < COUNTED and masks:
                flops[name].append(counter.get_total_flops() / len(masks))
    told = {"metric": "mIoU"} | compare(values, images)
    for name, cell in told["methods"].items():
        cell["MFLOP a sentence"] = round(float(np.mean(flops[name])) / 1e6, 1)
    return told


if __name__ == "__main__":
    run(measure)
