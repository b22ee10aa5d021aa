"""What sharing an image's work buys, and whether memory stays flat: ``python benchmarks/bench_evaluation.py [images]``.

Prints CPU seconds of four separate runs over those of one run of all four variants, timed in turn image by image (so
a busy machine disturbs both alike), and the memory after the first tenth and at the end.
"""

from __future__ import annotations

import sys
import time
from itertools import cycle, islice
from pathlib import Path

import torch

from refdiff_lite import RefDiff
from refdiff_lite.config import VARIANTS
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation import evaluate_scene


def resident() -> float:
    """Memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main(images: int = 6) -> None:
    torch.set_num_threads(1)
    model, samples = RefDiff.from_preset("toy"), load_toyref("val")
    list(evaluate_scene(model, samples[0], VARIANTS, "felzenszwalb"))  # warm up
    together = apart = 0.0
    for sample in samples[:images]:
        start = time.process_time()
        list(evaluate_scene(model, sample, VARIANTS, "felzenszwalb"))
        middle = time.process_time()
        for variant in VARIANTS:
            list(evaluate_scene(model, sample, [variant], "felzenszwalb"))
        together, apart = together + middle - start, apart + time.process_time() - middle
    print(f"four runs / one run of four variants: {apart / together:.2f} ({apart:.1f} s / {together:.1f} s CPU)")
    few = load_toyref("val", "noun")
    for number, sample in enumerate(islice(cycle(few), 10 * images), start=1):
        list(evaluate_scene(model, sample, ["full"], "felzenszwalb"))
        if number in (images, 10 * images):
            print(f"memory after {number} images: {resident():.0f} MiB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
