"""How good are the toy networks? ``python -m studies.measure`` (``make measure``), on ToyRef test scenes.

Each part of the model alone: what the VAE keeps, what CLIP tells apart, how much a right caption helps the UNet,
whether CLIP recognises what the UNet paints, and how well DDIM inversion comes back. Intervals are 95 %, by
image: Wilson's for shares, else the bootstrap's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from tqdm.auto import tqdm

from refdiff_lite.evaluation.metrics import bootstrap, interval, psnr
from refdiff_lite.files import write_text, write_whole
from refdiff_lite.inversion import denoise, guided, invert
from refdiff_lite.latents import add_noise, decode, encode
from refdiff_lite.networks import Networks, clip, load
from refdiff_lite.pipeline import RefDiff
from refdiff_lite.toy.phrases import Phrase, caption, names_one
from refdiff_lite.toy.scenes import SIDE, ToyScene, categories, make_scene
from refdiff_lite.toy.train_clip import crop_hits


def reconstructions(nets: Networks, scenes: list[ToyScene]) -> list[np.ndarray]:
    """Every scene's image after the VAE's way there and back."""
    return [decode(nets.sd.vae, encode(nets.sd.vae, s.image, (SIDE, SIDE))) for s in scenes]


def edges_kept(scene: ToyScene, found: np.ndarray) -> float:
    """How sharp ``found`` is: mean brightness gradient inside the things, over that of the scene's image."""
    size = [np.hypot(*np.gradient(x.mean(-1)))[scene.masks.any(0)].mean() for x in (found, scene.image)]
    return float(size[0] / size[1])


@torch.no_grad()
def caption_gains(model: RefDiff, scenes: list[ToyScene], t: int) -> list[tuple[float, float]]:
    """(loss with the right caption, loss with the next scene's) of the predicted noise at timestep t, per scene."""
    nets, rng = model.networks, np.random.default_rng(0)
    text = model.encode_prompt([caption(s.things, rng, everything=1.0) for s in scenes])
    generator, rows = torch.Generator().manual_seed(0), []
    for i, scene in enumerate(scenes):
        x0 = encode(nets.sd.vae, scene.image, (SIDE, SIDE))
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        x = add_noise(nets.sd.scheduler, x0, noise, t).repeat(2, 1, 1, 1)
        guess = nets.sd.unet(x, t, torch.stack([text[i], text[(i + 1) % len(scenes)]])).sample
        right, wrong = (guess - noise).float().square().mean((1, 2, 3)).tolist()
        rows.append((right, wrong))
    return rows


@torch.no_grad()
def sampling_hits(
    nets: Networks, each: int = 2, guidance: float = 5.0, steps: int = 30, **call: Any
) -> tuple[list[bool], list[Image.Image]]:
    """Paint "a <kind>" for every kind; does CLIP, on the whole picture, name that kind among all 45?"""
    text = nets.clip.encode_text(nets.clip_tokenizer([f"a {c}" for c in categories()]).to(nets.device), normalize=True)
    hits, pictures = [], []
    side = nets.clip.visual.image_size[0]
    for number, name in enumerate(tqdm(categories(), "sampling", mininterval=5)):
        images = nets.sd(
            [f"a {name}"] * each, num_inference_steps=steps, guidance_scale=guidance, height=SIDE, width=SIDE,
            generator=torch.Generator().manual_seed(number), **call,
        ).images  # fmt: skip
        for image in images:
            x = torch.from_numpy(np.array(image.resize((side, side), Image.Resampling.BICUBIC)))
            feature = clip.encode_images(
                nets.clip, [x.permute(2, 0, 1).float().to(nets.device) / 255], nets.clip_mean, nets.clip_std
            )[0]
            hits.append(int((text @ feature).argmax()) == number)
        pictures.append(images[0])
    return hits, pictures


def write_sheet(pictures: list[Image.Image], path: Path) -> None:
    """One picture of every kind, nine in a row."""
    sheet = Image.new("RGB", (9 * SIDE, 5 * SIDE))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % 9 * SIDE, i // 9 * SIDE))
    write_whole(path, sheet.save)


def word_hits(model: RefDiff, scenes: list[ToyScene]) -> dict[str, list[tuple[int, bool]]]:
    """(image, right?) of gs with true masks: nouns of things in their own colour, of tinted ones, and those with the tint said."""
    found: dict[str, list[tuple[int, bool]]] = {"own colour, noun": [], "tinted, noun": [], "tinted, tint and noun": []}
    for number, scene in enumerate(scenes):
        asked = model.set_image(scene.image, oracle=scene.masks)
        for i, thing in enumerate(scene.things):
            noun = Phrase(thing.category)
            if not names_one(noun, scene.things, i):
                continue
            said = {"tinted, noun": noun, "tinted, tint and noun": replace(noun, tint=thing.tint)}
            for name, phrase in said.items() if thing.tint else [("own colour, noun", noun)]:
                text = phrase.text(np.random.default_rng(0))
                chosen = asked.segment(text, "gs", "oracle").mask  # proposals come in an order of their own
                found[name].append((number, np.array_equal(chosen, scene.masks[i])))
    return found


def inversion_psnr(model: RefDiff, scenes: list[ToyScene], steps: int, fixed_point: int) -> list[float]:
    """PSNR after inversion and reconstruction (guidance 1, true caption), against the VAE's own reconstruction."""
    nets, rng, found = model.networks, np.random.default_rng(0), []
    for scene in scenes:
        x0 = encode(nets.sd.vae, scene.image, (SIDE, SIDE))
        denoiser = guided(nets.sd.unet, model.encode_prompt([caption(scene.things, rng, everything=1.0)]))
        noise = invert(nets.sd.scheduler, denoiser, x0, steps, fixed_point=fixed_point)[-1]
        back = denoise(nets.sd.scheduler, denoiser, noise, steps)[-1]
        found.append(psnr(decode(nets.sd.vae, back), decode(nets.sd.vae, x0)))
    return found


def bounds(values: list, images: list[int], statistic: Callable = np.mean) -> tuple[float, float]:
    """95 % interval: of a share (of hits, True or False) Wilson's, of anything else the bootstrap's."""
    share = all(isinstance(v, (bool, np.bool_)) for v in values)
    return interval(values, images) if share else bootstrap(values, images, statistic)


def main(
    limit: Annotated[int, typer.Option(help="Test scenes for the quick parts; inversion takes a fifth.")] = 160,
    out: Annotated[Path, typer.Option(help="Where measures.json and samples.png go.")] = Path("data/models/toy"),
) -> None:
    """Measure, print and write ``measures.json`` and a sheet of samples."""
    model = RefDiff(load("toy"))
    nets, scenes = model.networks, [make_scene("test", i) for i in range(limit)]
    few = scenes[: max(4, limit // 5)]
    report: dict[str, dict] = {}

    def note(name: str, values: list, images: list[int] | None = None, statistic: Callable = np.mean) -> None:
        rows = np.asarray(values, float)
        low, high = bounds(values, images or list(range(len(values))), statistic)
        report[name] = {
            "value": round(float(statistic(rows)), 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "n": len(rows),
        }
        typer.echo(f"{name:44} {report[name]['value']:8.3f}  ({low:.3f} – {high:.3f}, n = {len(rows)})")

    found = reconstructions(nets, scenes)
    note("VAE reconstruction, PSNR dB", [psnr(s.image, x) for s, x in zip(scenes, found, strict=True)])
    note("VAE reconstruction, edges kept", [edges_kept(s, x) for s, x in zip(scenes, found, strict=True)])
    hits = crop_hits(nets.clip, nets.clip_tokenizer, scenes)
    note("CLIP, kind of a true crop among 45", [h for _, h in hits], [i for i, _ in hits])
    for t in (100, 300, 500, 700, 900):
        note(f"UNet, gain of the right caption at t = {t}", caption_gains(model, scenes, t),
             statistic=lambda r: 1 - r[:, 0].mean() / r[:, 1].mean())  # fmt: skip
    for name, rows in word_hits(model, scenes).items():
        note(f"GS, true masks, {name}", [hit for _, hit in rows], [i for i, _ in rows])
    painted, pictures = sampling_hits(nets)
    note('samples of "a <kind>" that CLIP names', painted)
    for steps, repeats in ((50, 0), (10, 0), (10, 5)):
        name = "fixed-point" if repeats else "plain"
        note(f"DDIM inversion, {steps} steps, {name}, PSNR dB", inversion_psnr(model, few, steps, repeats))
    write_text(out / "measures.json", json.dumps(report, indent=1) + "\n")
    write_sheet(pictures, out / "samples.png")


if __name__ == "__main__":
    typer.run(main)
