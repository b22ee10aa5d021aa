"""What sharing an image's work buys, what a second process buys, and whether memory stays flat.

``python benchmarks/bench_evaluation.py sharing | processes | memory`` (``make bench-evaluation``), on the toy networks, one
thread for each process. Each prints rows of benchmarks/README.md.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
import typer

from refdiff_lite import RefDiff
from refdiff_lite.config import PAPER_VARIANTS, ProposalKind
from refdiff_lite.datasets import Sample
from refdiff_lite.datasets.toyref import SPLITS, load_toyref
from refdiff_lite.evaluation.run import evaluate, evaluate_scene
from refdiff_lite.scene import Scene

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
        seconds(first, PAPER_VARIANTS, kind)  # warm up
        together = apart = 0.0
        for sample in samples[:images]:
            together += seconds(sample, PAPER_VARIANTS, kind)
            apart += sum(seconds(sample, [v], kind) for v in PAPER_VARIANTS)
        print(
            f"| four variants apart over together, {kind}, {images} images | {apart / together:.2f} | ≥ 3 |", flush=True
        )


class Timing(NamedTuple):
    """Of a whole command: wall seconds, wall seconds until every process had done an image, and from then on sentences
    a wall second, and a CPU second of the busiest process (which does not suffer from what else the machine does)."""

    whole: float
    start: float
    rate: float
    cpu_rate: float


def timed(processes: int, images: int) -> Timing:
    """Start an evaluation as a user does, and watch the lines that it appends."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "refdiff_lite.evaluation", "toyref", "--proposals", "felzenszwalb"]
    seen: list[tuple[float, int, dict[int, float]]] = []  # when, sentences done by then, CPU seconds of each process
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nothing:
        command += ["--variant", "full", "--limit", str(images), "--out", folder]
        begin = time.perf_counter()
        process = psutil.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=nothing, stderr=nothing)
        while process.poll() is None:
            done = [p.read_bytes().splitlines() for p in Path(folder, "parts").glob("*.jsonl")]
            count = sum(len(json.loads(line)["rows"]) for part in done for line in part if line.endswith(b"}"))
            if len(done) == processes and all(done) and (not seen or count > seen[-1][1]):
                workers = process.children() if launcher else [process]
                cpu = {p.pid: sum(p.cpu_times()[:2]) for p in workers}
                seen.append((time.perf_counter() - begin, count, cpu))
            time.sleep(0.1)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed with exit code {process.returncode}")
    (start, before, cpu), (end, after, later) = seen[0], seen[-1]
    rate, busiest = (after - before) / (end - start), max(later[p] - cpu[p] for p in cpu)
    return Timing(time.perf_counter() - begin, start, rate, (after - before) / busiest)


@app.command()
def processes(images: int = 60, turns: int = 2) -> None:
    """Two processes of one thread against one, in turn: the rate once both are at work, and whole commands."""
    found: dict[int, list[Timing]] = {1: [], 2: []}
    for _ in range(turns):
        for n, timings in found.items():
            timings.append(timed(n, images))
    one, two = (Timing(*np.mean(timings, axis=0)) for timings in found.values())
    print(
        f"| two processes over one, once at work, sentences a CPU second of the busiest | {two.cpu_rate / one.cpu_rate:.2f} | ≥ 1.6 |"
    )
    print(f"| the same, a wall second | {two.rate / one.rate:.2f} | ≥ 1.6 |")
    print(f"| the same, whole command of {images} images ({one.start / one.whole:.0%} of one's is start-up, "
          f"{two.start / two.whole:.0%} of two's) | {one.whole / two.whole:.2f} | – |", flush=True)  # fmt: skip


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
