"""What the toy networks can do, to look at: ``python -m studies.pictures`` (``make pictures``).

Training curves, samples with their prompts, the map of every noun of a busy scene, how these maps emerge over training,
and inversion there and back.
"""

from __future__ import annotations

import json
import textwrap
from functools import partial
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from safetensors.torch import load_file

from refdiff_lite.files import check_folder, data_dir, write_whole
from refdiff_lite.inversion import denoise, guided, invert
from refdiff_lite.latents import decode, encode
from refdiff_lite.networks import load
from refdiff_lite.pipeline import RefDiff
from refdiff_lite.toy.phrases import caption
from refdiff_lite.toy.scenes import SIDE, make_scene
from refdiff_lite.viz import show_image, show_map

PROMPTS = (
    "a cat", "a purple cat", "a cat and a dog", "a cat on the left and a dog on the right",
    "a tree", "a red flower", "a large pizza", "a small boat and a large boat",
    "an airplane", "a blue car", "a robot and a rocket", "a house at the bottom and a star at the top",
    "a penguin", "a green chair", "a cup, a book and a clock", "an elephant left of a frog",
)  # fmt: skip

LABELS = {"localisation": "all", "tinted": "of tinted things"}


def curves(folder: Path) -> Figure:
    """Loss and what matters about each network, over training, from the committed logs."""
    logs = {
        name: [json.loads(line) for line in (folder / f"{name}-log.jsonl").read_text().splitlines()]
        for name in ("vae", "decoder", "clip", "unet", "emergence")
    }
    panels = [
        ("vae", ["val_psnr"], "VAE: PSNR of val scenes", "dB"),
        ("decoder", ["val_psnr"], "then its decoder alone", "dB"),
        ("clip", ["crop_accuracy"], "CLIP: kind of a val crop, of 45", "share right"),
        ("unet", ["loss"], "UNet: loss", "squared error of the noise"),
        ("unet", [f"gain_{t}" for t in (100, 300, 500, 700, 900)], "UNet: gain of the right caption", "share of loss"),
        ("unet", ["localisation", "tinted"], "UNet: nouns found by their map (val)", "share"),
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(20, 3), layout="constrained")
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, 5))
    for ax, (name, keys, title, unit) in zip(axes, panels, strict=True):
        for key, colour in zip(keys, colours, strict=False):
            rows = [(r["step"], r[key]) for r in logs[name] if key in r]
            ax.plot(*zip(*rows, strict=True), color=colour, label=LABELS.get(key, key.replace("gain_", "t = ")))
            if name == "unet":  # dotted: the first steps of a training from scratch
                rows = [(r["step"], r[key]) for r in logs["emergence"] if key in r]
                ax.plot([step for step, _ in rows], [value for _, value in rows], ":", color=colour)
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="steps", ylabel=unit)
        ax.spines[["top", "right"]].set_visible(False)
        if ax.lines and len(keys) > 1:
            ax.legend(fontsize=7, frameon=False)
    return figure


def samples(model: RefDiff, guidance: float = 5.0, steps: int = 30) -> Figure:
    """One picture for each of :data:`PROMPTS`, seeds 0 to 15, none chosen by hand."""
    figure, axes = plt.subplots(4, 4, figsize=(9, 9.6), layout="constrained")
    for seed, (ax, prompt) in enumerate(zip(axes.flat, PROMPTS, strict=True)):
        generator = torch.Generator().manual_seed(seed)
        image = model.networks.sd(
            prompt, num_inference_steps=steps, guidance_scale=guidance, height=SIDE, width=SIDE, generator=generator
        ).images[0]
        show_image(np.array(image), ax, textwrap.fill(prompt, 24))
    return figure


def words(model: RefDiff, number: int) -> Figure:
    """A val scene and the map of each noun under that noun alone."""
    scene = make_scene("val", number)
    asked = model.set_image(scene.image)
    nouns = [t.category for t in scene.things]
    figure, axes = plt.subplots(1, len(nouns) + 1, figsize=(2.4 * (len(nouns) + 1), 2.7), layout="constrained")
    show_image(scene.image, axes[0], f"val scene {number}")
    for ax, noun in zip(axes[1:], nouns, strict=True):
        show_map(asked.segment(noun, "g").word_map, scene.image, ax, f'"{noun}"')
    return figure


def emergence(snapshots: list[Path], number: int) -> Figure:
    """Three nouns of a val scene: their maps after 250, 500, 1000, … steps of training, and as they are bundled."""
    scene, nets = make_scene("val", number), load("toy")
    nouns = [t.category for t in scene.things[:3]]
    shape = (len(nouns), len(snapshots) + 1)
    figure, axes = plt.subplots(*shape, figsize=(2.0 * shape[1], 2.25 * shape[0]), layout="constrained", squeeze=False)
    for column, shot in enumerate((None, *reversed(snapshots))):  # the bundled ones first: they are loaded
        if shot:
            weights = load_file(shot)
            for name, part in (("unet", nets.sd.unet), ("text", nets.sd.text_encoder)):
                part.load_state_dict({k.split(".", 1)[1]: w for k, w in weights.items() if k.startswith(name)})
        asked = RefDiff(nets).set_image(scene.image)
        for noun, ax in zip(nouns, axes[:, shape[1] - 1 - column], strict=True):
            when = f"{int(shot.stem):,} steps" if shot else "bundled"
            show_map(asked.segment(noun, "g").word_map, scene.image, ax, f'"{noun}", {when}')
    return figure


def inversion(model: RefDiff, number: int) -> Figure:
    """A val scene, its noise by inversion, and what comes back: few steps, fixed-point, many steps."""
    nets, scene = model.networks, make_scene("val", number)
    x0 = encode(nets.sd.vae, scene.image, (SIDE, SIDE))
    text = caption(scene.things, np.random.default_rng(0), everything=1.0)
    denoiser = guided(nets.sd.unet, model.encode_prompt([text]))
    shown = [(scene.image, "image"), (decode(nets.sd.vae, x0), "VAE alone")]
    for steps, repeats in ((10, 0), (10, 5), (50, 0)):
        noise = invert(nets.sd.scheduler, denoiser, x0, steps, fixed_point=repeats)[-1]
        name = f"{steps} steps{', fixed-point' if repeats else ''}"
        if steps == 10 and not repeats:
            shown.append((decode(nets.sd.vae, noise), "its noise, decoded"))
        shown.append((decode(nets.sd.vae, denoise(nets.sd.scheduler, denoiser, noise, steps)[-1]), f"back, {name}"))
    figure, axes = plt.subplots(1, len(shown), figsize=(2.4 * len(shown), 2.7), layout="constrained")
    for ax, (image, title) in zip(axes, shown, strict=True):
        show_image(image, ax, title)
    figure.suptitle(f'DDIM inversion under "{text}"', fontsize=9)
    return figure


def main(
    out: Annotated[Path | None, typer.Option(help="Default: beside the networks.")] = None,
    work: Annotated[Path, typer.Option(help="Where training left its snapshots.")] = Path("build/toy"),
) -> None:
    """Make all pictures; the one of maps over training only where there are snapshots."""
    folder = data_dir() / "models" / "toy"
    out = out or folder
    check_folder(out)
    model = RefDiff(load("toy"))
    busy = max(range(40), key=lambda i: len({t.category for t in make_scene("val", i).things}))
    pictures = {
        "curves": lambda: curves(folder), "prompts": lambda: samples(model),
        "words": lambda: words(model, busy), "inversion": lambda: inversion(model, busy),
    }  # fmt: skip
    if snapshots := sorted((work / "unet" / "snapshots").glob("*.safetensors"), key=lambda path: int(path.stem)):
        pictures["emergence"] = lambda: emergence(snapshots, busy)
    for name, make in pictures.items():
        figure = make()
        write_whole(out / f"{name}.png", partial(figure.savefig, dpi=80))
        plt.close(figure)
        typer.echo(f"-> {out}/{name}.png")


if __name__ == "__main__":
    typer.run(main)
