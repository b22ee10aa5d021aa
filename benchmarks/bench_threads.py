"""What the choice of threads costs on an idle and on a busy machine: each setting beside the best, timed in turn.

The library computes small networks on one core by itself; "default" is that, with torch's own setting around it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import torch

ROUNDS, SENTENCES = 5, 8
SETTINGS = {"default": None, "1 thread": 1, "all cores": torch.get_num_threads()}
BUSY = "while True: pass"


def work(threads: int | None) -> None:
    """Print the seconds of a new picture and of new sentences about it."""
    import refdiff_lite.networks.loading as loading
    from refdiff_lite import RefDiff
    from refdiff_lite.datasets.toyref import load_toyref

    if threads is not None:  # the user's own setting, with the library's choice switched off
        loading.SMALL = 0
        torch.set_num_threads(threads)
    model, sample = RefDiff.from_preset("toy"), load_toyref("val", limit=1)[0]
    model.set_image(sample.path).segment("warm up")
    start = time.perf_counter()
    scene = model.set_image(sample.path)
    for n in range(SENTENCES):
        scene.segment(f"the cat number {n}")
    print((time.perf_counter() - start) / SENTENCES)


def seconds(threads: int | None) -> float:
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, __file__, str(threads)], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print every setting's time over the best one's, without and with a process that keeps each core busy."""
    for busy in (False, True):
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy * (os.cpu_count() or 1))]
        try:
            found = {name: [] for name in SETTINGS}
            for _ in range(ROUNDS):
                for name, threads in SETTINGS.items():  # in turn, so that all meet the same machine
                    found[name].append(seconds(threads))
        finally:
            for other in others:
                other.kill()
        middle = {name: sorted(times)[ROUNDS // 2] for name, times in found.items()}
        best = min(middle.values())
        print("busy" if busy else "idle", {name: round(t / best, 2) for name, t in middle.items()})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(None if sys.argv[1] == "None" else int(sys.argv[1]))
    else:
        main()
