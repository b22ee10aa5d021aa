"""What sharing an image's work buys, what a second process buys, and whether memory stays flat.

``python benchmarks/bench_evaluation.py sharing | processes | memory`` (``make bench-evaluation``), on the toy networks, one
thread for each process. Each prints rows of benchmarks/README.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import typer

from refdiff_lite import RefDiff
from refdiff_lite.config import VARIANTS, ProposalKind
from refdiff_lite.datasets import Sample
from refdiff_lite.datasets.toyref import SPLITS, load_toyref
from refdiff_lite.evaluation import evaluate, evaluate_scene
from refdiff_lite.pipeline import Scene

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
KINDS: tuple[ProposalKind, ...] = ("oracle", "felzenszwalb")


@app.command()
def sharing(images: int = 20) -> None:
    """CPU seconds of four separate runs over those of one run of all four variants, in turn image by image."""
    torch.set_num_threads(1)
    model, (first, *samples) = RefDiff.from_preset("toy"), load_toyref("val")

    def seconds(sample: Sample, variants: Sequence[str], kind: ProposalKind) -> float:
        start = time.process_time()
        list(evaluate_scene(model, sample, variants, kind))
        return time.process_time() - start

    for kind in KINDS:
        seconds(first, VARIANTS, kind)  # warm up
        together = apart = 0.0
        for sample in samples[:images]:
            together += seconds(sample, VARIANTS, kind)
            apart += sum(seconds(sample, [v], kind) for v in VARIANTS)
        print(
            f"| four variants apart over together, {kind}, {images} images | {apart / together:.2f} | ≥ 3 |", flush=True
        )


class Timing(NamedTuple):
    """Wall seconds of a command, of them until every process had done an image; sentences a second from then on."""

    whole: float
    start: float
    rate: float


def timed(processes: int, images: int) -> Timing:
    """Start an evaluation as a user does, and watch the lines that it appends."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "refdiff_lite.evaluation", "toyref", "--proposals", "felzenszwalb"]
    with tempfile.TemporaryDirectory() as folder:
        command += ["--variant", "full", "--limit", str(images), "--out", folder]
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        seen: list[tuple[float, int]] = []  # when, and how many sentences were done then
        while process.poll() is None:
            done = [p.read_bytes().splitlines() for p in Path(folder, "parts").glob("*.jsonl")]
            count = sum(len(json.loads(line)["rows"]) for part in done for line in part if line.endswith(b"}"))
            if len(done) == processes and all(done) and (not seen or count > seen[-1][1]):
                seen.append((time.perf_counter() - begin, count))
            time.sleep(0.1)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed with exit code {process.returncode}")
    (start, before), (end, after) = seen[0], seen[-1]
    return Timing(time.perf_counter() - begin, start, (after - before) / (end - start))


@app.command()
def processes(images: int = 60, turns: int = 2) -> None:
    """Two processes of one thread against one, in turn: whole commands, and the rate once both are at work."""
    found = {n: [] for n in (1, 2)}
    for _ in range(turns):
        for n, timings in found.items():
            timings.append(timed(n, images))
    one, two = (Timing(*np.mean(found[n], axis=0)) for n in (1, 2))
    print(
        f"| two processes over one, sentences a second once at work, {images} images | {two.rate / one.rate:.2f} | ≥ 1.6 |"
    )
    print(f"| the same, whole command ({one.start / one.whole:.0%} of one's is start-up, {two.start / two.whole:.0%} of two's)"
          f" | {one.whole / two.whole:.2f} | – |", flush=True)  # fmt: skip


def resident() -> float:
    """Memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Watched(RefDiff):
    """Notes the process's memory at every 50th image."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked, self.memory = 0, list[float]()

    def set_image(self, *args: Any, **kwargs: Any) -> Scene:
        if self.asked % 50 == 0:
            self.memory.append(resident())
        self.asked += 1
        return super().set_image(*args, **kwargs)


@app.command()
def memory(images: int = 1000) -> None:
    """Memory of one run, journal and all, that goes round the bundled splits, a sentence an image."""
    torch.set_num_threads(1)
    bundled = [s for split in SPLITS for s in load_toyref(split, "noun") if s.records]
    samples = [replace(s, image_id=n, records=s.records[:1]) for n, s in enumerate(islice(cycle(bundled), images))]
    model = Watched.from_preset("toy")
    with tempfile.TemporaryDirectory() as folder:
        evaluate(model, samples, ["full"], "felzenszwalb", Path(folder))
    print("MiB at every 50th image:", *(f"{m:.0f}" for m in model.memory))
    late = model.memory[len(model.memory) // 2 :]  # before that, allocators still warm up
    slope = np.polyfit(50 * np.arange(len(late)), late, 1)[0]
    print(
        f"| memory over the second half of {images} images, highest over lowest | {max(late) / min(late):.3f} | flat |"
    )
    print(f"| its slope there, MiB for 1000 images | {1000 * slope:+.1f} | flat |")


if __name__ == "__main__":
    app()
