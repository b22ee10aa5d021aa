"""How cost grows with a picture's side and with the number of sentences: ratios, each in a process of its own."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

ROUNDS = 3


def work(side: int, sentences: int) -> None:
    """Print seconds and MB above the start of a new picture, its proposals and sentences."""
    import numpy as np

    from refdiff_lite import RefDiff
    from refdiff_lite.datasets.toyref import load_toyref
    from refdiff_lite.images import load_image

    model = RefDiff.from_preset("toy")
    image = load_image(load_toyref("val", limit=1)[0].path)
    large = np.kron(image, np.ones((side // 128, side // 128, 1), np.uint8))
    model.set_image(image).segment("warm up")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    scene = model.set_image(large)
    scene.proposals("felzenszwalb")
    proposals = time.perf_counter() - start
    scene.segment_all([f"the cat number {n}" for n in range(sentences)])
    total = time.perf_counter() - start
    print(proposals, total - proposals, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def middle(side: int, sentences: int) -> list[float]:
    """Median of proposals' seconds, sentences' seconds and MB."""
    rows = []
    for _ in range(ROUNDS):
        command = [sys.executable, __file__, str(side), str(sentences)]
        rows.append(
            [float(x) for x in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]
        )
    return [sorted(column)[ROUNDS // 2] for column in zip(*rows, strict=True)]


def main() -> None:
    """Print how much more each doubling costs."""
    sides = {side: middle(side, 1) for side in (256, 512, 1024)}
    for small, large in ((256, 512), (512, 1024)):
        names = ("proposals", "first sentence")
        grown = {name: round(sides[large][i] / sides[small][i], 1) for i, name in enumerate(names)}
        print(f"{small} -> {large} px: {grown}, {sides[large][2]:.0f} MB above start at {large} px")
    few, many = middle(256, 8), middle(256, 64)
    print(f"8 -> 64 sentences: {many[1] / few[1]:.1f} times, {many[2] - few[2]:+.0f} MB")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(int(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
