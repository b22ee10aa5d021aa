"""When do words find their things? ``python -m studies.emergence``: UNet and transformer on one axis of training compute.

The logs hold nouns found by step. A step's compute is three forward passes (the backward pass costs two), counted on the real
networks: denoiser and text encoder, which both learn, at the training's batch size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from refdiff_lite.evaluation.metrics import interval
from refdiff_lite.files import check_folder, data_dir, write_text, write_whole
from refdiff_lite.lesson import BLUE, ORANGE, STYLE
from refdiff_lite.networks import load
from refdiff_lite.toy import train_dit, train_unet
from refdiff_lite.toy.dit import LATENT, load_dit, velocity, words
from refdiff_lite.toy.train_clip import tokens

NOUNS = 79
"""Nouns of the 40 val scenes that the logs look at."""
CAPTION = "a red car left of a small dog"
LOGS = {"UNet": "toy/emergence-long-log.jsonl", "transformer": "toy-dit/log.jsonl"}
NOISE = {"UNet": "t = 51 of 1000", "transformer": "t = 0.1"}


def flops(call: Any) -> int:
    """Floating-point operations of one call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


def step_flops() -> dict[str, int]:
    """Of one training step of each network: three times a forward pass of its batch."""
    pipe, toy = load_dit(), load("toy")
    x = torch.zeros(train_dit.BATCH, 4, LATENT, LATENT)
    dit = flops(lambda: velocity(pipe, x, torch.full((len(x),), 0.5), words(pipe, [CAPTION] * len(x))))
    x = torch.zeros(train_unet.BATCH, 4, LATENT, LATENT)
    text, unet = toy.use("text_encoder"), toy.use("unet")
    ids = tokens(toy.tokenizer, [CAPTION] * len(x))
    return {"UNet": 3 * flops(lambda: unet(x, 500, text(ids).last_hidden_state)), "transformer": 3 * dit}


def curves() -> dict[str, Any]:
    """For each network the compute of a step, and rows (step, compute, nouns found, low, high)."""
    each, found = step_flops(), {}
    for name, log in LOGS.items():
        rows = [json.loads(line) for line in (data_dir() / "models" / log).read_text().splitlines()]
        told = []
        for row in rows:
            hits = round(row["localisation"] * NOUNS)
            low, high = interval([1] * hits + [0] * (NOUNS - hits), range(NOUNS))
            told.append([row["step"], row["step"] * each[name], row["localisation"], round(low, 4), round(high, 4)])
        found[name] = {"flops a step": each[name], "noise": NOISE[name], "rows": told}
    return found


def draw(found: dict[str, Any], chance: float = 0.29) -> Figure:
    """Nouns found over training compute, with 95 % intervals."""
    figure = Figure(figsize=(6.4, 3.2), dpi=120, layout="constrained")
    ax = figure.subplots()
    for (name, told), colour in zip(found.items(), (BLUE, ORANGE), strict=True):
        _, compute, share, low, high = zip(*told["rows"], strict=True)
        compute = [c / 1e12 for c in compute]
        ax.plot(compute, [100 * s for s in share], color=colour, label=f"{name}, read at {told['noise']}")
        ax.fill_between(compute, [100 * x for x in low], [100 * x for x in high], color=colour, alpha=0.15, lw=0)
    ax.axhline(100 * chance, color="0.5", ls=":", label="chance")
    ax.set(xscale="log", ylim=(0, 100), xlabel="training compute, 10¹² operations", ylabel="nouns found on val, %")
    ax.legend(loc="upper left")
    return figure


def main(out: Annotated[Path, typer.Option(help="Where the two files go.")] = Path("data/models/toy-dit")) -> None:
    """Count, read the logs, and write ``emergence.json`` and ``emergence.png``."""
    import matplotlib as mpl

    folder = check_folder(out)
    found = curves()
    write_text(folder / "emergence.json", json.dumps(found, indent=1) + "\n")
    with mpl.rc_context(STYLE):  # ty: ignore[invalid-argument-type]  # matplotlib names every key in its types
        figure = draw(found)
        write_whole(folder / "emergence.png", figure.savefig)
    for name, told in found.items():
        typer.echo(
            f"{name}: {told['flops a step'] / 1e9:.1f} billion operations a step, {told['rows'][-1][0]} steps logged"
        )


if __name__ == "__main__":
    typer.run(main)
