"""How good is the toy diffusion transformer? ``python -m studies.measure_dit``: choose on val, report on test.

As for the UNet (:mod:`studies.measure`): how much a right caption helps, where nouns look by block and noise, things in their
own colour and tinted ones apart, and whether CLIP recognises what it paints. Intervals are 95 %, by image.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import StableDiffusion3Pipeline

from refdiff_lite.files import write_text
from refdiff_lite.networks import load
from refdiff_lite.toy.dit import NO_T5, load_dit
from refdiff_lite.toy.phrases import caption
from refdiff_lite.toy.scenes import ToyScene, make_scene
from refdiff_lite.toy.train_dit import caption_losses, encode, noun_hits
from studies.measure import bounds, sampling_hits, write_sheet

TIMES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)


def gain(rows: np.ndarray) -> float:
    """Of rows (right, wrong): the share of the loss that the right caption saves."""
    return float(1 - rows[:, 0].mean() / rows[:, 1].mean())


def choose(pipe: StableDiffusion3Pipeline, scenes: list[ToyScene]) -> tuple[dict[float, list[float]], float, list[int]]:
    """Share of nouns found by noise, one number a block and last that of all blocks' mean; the best noise and set of blocks."""
    table: dict[float, list[float]] = {}
    best: tuple[float, float, list[int]] = (0.0, 0.0, [])
    for t in TIMES:
        hits = noun_hits(pipe, scenes, t)
        blocks = range(len(hits[0].scores))
        found = {s: float(np.mean([h.right(s) for h in hits])) for n in blocks for s in combinations(blocks, n + 1)}
        table[t] = [round(found[s], 4) for s in (*((b,) for b in blocks), tuple(blocks))]
        best = max(best, *((share, t, list(s)) for s, share in found.items()), key=lambda x: x[0])
    return table, best[1], best[2]


def main(
    folder: Annotated[Path | None, typer.Option(help="The pipeline; default: the bundled one.")] = None,
    limit: Annotated[int, typer.Option(help="Scenes of val to choose on, and of test to report on.")] = 160,
    out: Annotated[Path, typer.Option(help="Where measures.json and samples.png go.")] = Path("data/models/toy-dit"),
) -> None:
    """Choose blocks and noise on val, measure on test, print and write ``measures.json`` and a sheet of samples."""
    pipe = load_dit(folder)
    table, t, blocks = choose(pipe, [make_scene("val", i) for i in range(limit)])
    typer.echo(f"val, by t: one number a block, last their mean's\n{json.dumps(table, indent=1)}\n-> {t=} {blocks=}")
    report: dict[str, Any] = {"val, nouns found by t and block": table, "chosen": {"t": t, "blocks": blocks}}
    scenes, rng = [make_scene("test", i) for i in range(limit)], np.random.default_rng(0)

    def note(name: str, rows: Any, images: Any = None, statistic: Any = np.mean) -> None:
        values: Any = np.asarray(rows, float)
        low, high = bounds(rows, images or list(range(len(values))), statistic)
        value = float(statistic(values))
        report[name] = {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4), "n": len(values)}
        typer.echo(f"{name:52} {value:8.3f}  ({low:.3f} – {high:.3f}, n = {len(values)})")

    x0 = torch.cat([encode(pipe, s) for s in scenes])
    texts = [caption(s.things, rng, everything=1.0) for s in scenes]
    for at in TIMES:
        note(f"gain of the right caption at t = {at}", torch.stack(caption_losses(pipe, x0, texts, at), 1), None, gain)
    hits = noun_hits(pipe, scenes, t)
    for name, kept in {"own colour": False, "tinted": True}.items():
        some = [h for h in hits if h.tinted == kept]
        note(f"noun, {name}, chosen blocks", [h.right(blocks) for h in some], [h.image for h in some])
        note(f"noun, {name}, all blocks", [h.right() for h in some], [h.image for h in some])
    note("noun, all, chosen blocks", [h.right(blocks) for h in hits], [h.image for h in hits])
    note("noun, all, all blocks", [h.right() for h in hits], [h.image for h in hits])
    note("noun, all, chance", [h.chance for h in hits], [h.image for h in hits])
    pipe.set_progress_bar_config(disable=True)
    painted, pictures = sampling_hits(replace(load("toy"), sd=pipe), **NO_T5)
    note('samples of "a <kind>" that CLIP names', painted)
    write_text(out / "measures.json", json.dumps(report, indent=1) + "\n")
    write_sheet(pictures, out / "samples.png")


if __name__ == "__main__":
    typer.run(main)
