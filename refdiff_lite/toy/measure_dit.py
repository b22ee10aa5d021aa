"""How good is the toy diffusion transformer? ``python -m refdiff_lite.toy.measure_dit``: choose on val, report on test.

As for the UNet (:mod:`.measure`): how much a right caption helps, where nouns look by block and noise, things in their
own colour and tinted ones apart, and whether CLIP recognises what it paints. Intervals are 95 %, by image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import StableDiffusion3Pipeline
from PIL import Image
from tqdm.auto import tqdm

from .. import ranking
from ..attention import min_max, resize
from ..backbones import Backbones, load
from ..expression import token_positions
from ..fusion import generative_score
from ..images import write_text, write_whole
from ..metrics import bootstrap
from .dit import NO_T5, load_dit, velocity, words
from .phrases import Phrase, caption, names_one
from .scenes import SIDE, ToyScene, categories, make_scene
from .training import to_tensor

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Hit:
    """Whether the map of one noun picks its thing among the true masks: in each block, and last in their mean."""

    image: int
    tinted: bool
    chance: float
    right: tuple[bool, ...]


@contextmanager
def _pixel_to_word(transformer: Any) -> Iterator[list[torch.Tensor]]:
    """Collect (B, pixels, tokens) for each block: softmax(q k^T / sqrt(d)) over pixels and tokens, mean over heads."""
    maps: list[torch.Tensor] = []

    def hook(attn: Any, args: tuple, kwargs: dict) -> None:
        pixels, text = kwargs["hidden_states"], kwargs["encoder_hidden_states"]
        q, k = attn.to_q(pixels), torch.cat([attn.to_k(pixels), attn.add_k_proj(text)], 1)
        q, k = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k))
        p = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        maps.append(p[..., pixels.shape[1] :].mean(1))

    hooks = [b.attn.register_forward_pre_hook(hook, with_kwargs=True) for b in transformer.transformer_blocks]
    try:
        yield maps
    finally:
        for handle in hooks:
            handle.remove()


def encode(pipe: StableDiffusion3Pipeline, scene: ToyScene) -> torch.Tensor:
    """(1, 4, 16, 16) scaled latents of a scene."""
    return pipe.vae.encode(to_tensor(scene.image[None])).latent_dist.mode() * pipe.vae.config.scaling_factor


@torch.no_grad()
def noun_hits(pipe: StableDiffusion3Pipeline, scenes: list[ToyScene], t: float) -> list[Hit]:
    """Every noun that names one thing, alone as caption, at noise ``t``: which true mask does its map prefer?"""
    found, generator = [], torch.Generator().manual_seed(0)
    for number, scene in enumerate(scenes):
        x0 = encode(pipe, scene)
        x = (1 - t) * x0 + t * torch.randn(x0.shape, generator=generator)
        asked = [i for i, thing in enumerate(scene.things) if names_one(Phrase(thing.category), scene.things, i)]
        if not asked:
            continue
        nouns, masks = [scene.things[i].category for i in asked], torch.from_numpy(scene.masks)
        with _pixel_to_word(pipe.transformer) as maps:
            velocity(pipe, x.expand(len(asked), -1, -1, -1), torch.full((len(asked),), t), words(pipe, nouns))
        side = pipe.transformer.config.sample_size // pipe.transformer.config.patch_size
        for row, (i, noun) in enumerate(zip(asked, nouns, strict=True)):
            last = token_positions(pipe.tokenizer, noun, (0, len(noun)))[-1]
            layers = torch.stack([m[row, :, last].reshape(side, side) for m in maps])
            layers = min_max(resize(torch.cat([layers, layers.mean(0, keepdim=True)]), tuple(masks.shape[1:])))
            right = tuple(int(generative_score(c, masks).argmax()) == i for c in layers)
            found.append(Hit(number, scene.things[i].tint is not None, 1 / len(masks), right))
    return found


@torch.no_grad()
def caption_losses(
    pipe: StableDiffusion3Pipeline, x0: torch.Tensor, texts: list[str], t: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared error of the velocity, (N,) each, with the right captions and with the next scene's."""
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    x, times, text = (1 - t) * x0 + t * noise, torch.full((len(x0),), t), words(pipe, texts)
    right, wrong = (
        (velocity(pipe, x, times, said) - (noise - x0)).square().mean((1, 2, 3)) for said in (text, text.roll(-1, 0))
    )
    return right, wrong


def gain(rows: np.ndarray) -> float:
    """Of rows (right, wrong): the share of the loss that the right caption saves."""
    return float(1 - rows[:, 0].mean() / rows[:, 1].mean())


@torch.no_grad()
def sampling_hits(
    pipe: StableDiffusion3Pipeline, nets: Backbones, each: int = 2, guidance: float = 5.0, steps: int = 30
) -> tuple[list[bool], list[Image.Image]]:
    """Paint "a <kind>" for every kind; does CLIP, on the whole picture, name that kind among all 45?"""
    text = nets.clip.encode_text(nets.clip_tokenizer([f"a {c}" for c in categories()]), normalize=True)
    side, hits, pictures = nets.clip.visual.image_size[0], [], []
    pipe.set_progress_bar_config(disable=True)
    for number, name in enumerate(tqdm(categories(), "sampling", mininterval=5)):
        images = pipe(
            [f"a {name}"] * each, num_inference_steps=steps, guidance_scale=guidance,
            generator=torch.Generator().manual_seed(number), **NO_T5,
        ).images  # fmt: skip
        for image in images:
            x = torch.from_numpy(np.array(image.resize((side, side), Image.Resampling.BICUBIC)))
            x = x.permute(2, 0, 1).float() / 255
            feature = ranking.encode_images(nets.clip, [x], nets.clip_mean, nets.clip_std)[0]
            hits.append(int((text @ feature).argmax()) == number)
        pictures.append(images[0])
    return hits, pictures


def block_table(pipe: StableDiffusion3Pipeline, scenes: list[ToyScene]) -> dict[float, list[float]]:
    """Share of nouns found, by noise: one number a block, and last that of all blocks' mean."""
    return {t: np.mean([h.right for h in noun_hits(pipe, scenes, t)], 0).round(4).tolist() for t in TIMES}


def main(
    folder: Annotated[Path | None, typer.Option(help="The pipeline; default: the bundled one.")] = None,
    limit: Annotated[int, typer.Option(help="Scenes of val to choose on, and of test to report on.")] = 160,
    out: Annotated[Path, typer.Option(help="Where measures.json and samples.png go.")] = Path("data/models/toy-dit"),
) -> None:
    """Choose block and noise on val, measure on test, print and write ``measures.json`` and a sheet of samples."""
    pipe, nets = load_dit(folder), load("toy")
    table = block_table(pipe, [make_scene("val", i) for i in range(limit)])
    t, block = max(((t, b) for t in table for b in range(len(table[t]))), key=lambda at: table[at[0]][at[1]])
    typer.echo(f"val, by t: one number a block, last all blocks' mean\n{json.dumps(table, indent=1)}\n-> {t=} {block=}")
    report: dict[str, Any] = {"val, nouns found by t and block": table, "chosen": {"t": t, "block": block}}
    scenes, rng = [make_scene("test", i) for i in range(limit)], np.random.default_rng(0)

    def note(name: str, rows: Any, images: Any = None, statistic: Any = np.mean) -> None:
        values = np.asarray(rows, float)
        low, high = bootstrap(values, images if images is not None else range(len(values)), statistic)
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
        note(f"noun, {name}, chosen block", [h.right[block] for h in some], [h.image for h in some])
        note(f"noun, {name}, all blocks", [h.right[-1] for h in some], [h.image for h in some])
    note("noun, all, chosen block", [h.right[block] for h in hits], [h.image for h in hits])
    note("noun, all, chance", [h.chance for h in hits], [h.image for h in hits])
    painted, pictures = sampling_hits(pipe, nets)
    note('samples of "a <kind>" that CLIP names', painted)
    write_text(out / "measures.json", json.dumps(report, indent=1) + "\n")
    sheet = Image.new("RGB", (9 * SIDE, 5 * SIDE))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % 9 * SIDE, i // 9 * SIDE))
    write_whole(out / "samples.png", sheet.save)


if __name__ == "__main__":
    typer.run(main)
