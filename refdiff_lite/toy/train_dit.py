"""``python -m refdiff_lite.toy.train_dit``: train the toy diffusion transformer by rectified flow, resumably.

x_t = (1 - t) x_0 + t eps, and the transformer predicts the velocity eps - x_0 (SD3, 2403.03206). Images and captions only,
the same as the UNet's; the text encoder begins as the UNet's and learns along. ``--start`` goes on from saved weights,
with an optimizer that knows nothing yet: the rate warms up again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import StableDiffusion3Pipeline
from torch.overrides import TorchFunctionMode

from ..attention import record_attention, resize
from ..expression import token_positions
from ..fusion import generative_score
from .dit import learning, load_dit, save_dit, start_pipeline, velocity, words
from .phrases import Phrase, caption, names_one
from .scenes import ToyScene, make_scene
from .train_unet import TINTS, recolour, say
from .train_vae import encode_all
from .training import LOOKED_AT, load_scenes, to_tensor, train

BATCH = 32
T_MEAN, T_STD = 0.2, 1.2
"""Of the normal whose logistic is t: most steps where a caption matters, one in a hundred or so close to either end."""
RECOLOURED, SHOWN_BELOW = 0.7, 0.9
"""The share of recoloured pictures below this t; above there are none. More than the UNet's: a transformer that sees
single latents learns colours long before shapes."""


class _Unfused(TorchFunctionMode):
    """Attention as three plain operations: on a CPU in bfloat16 the fused kernel takes nearly twice as long."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = args
        return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v


@dataclass(frozen=True)
class Hit:
    """How the map of one noun scores the true masks: (blocks, masks) S_G of each block's map, and which mask is its thing."""

    image: int
    tinted: bool
    target: int
    scores: torch.Tensor

    @property
    def chance(self) -> float:
        return 1 / self.scores.shape[1]

    def right(self, blocks: Sequence[int] | None = None) -> bool:
        """Does the mean map of these blocks (default: of all) prefer the noun's thing? S_G of a mean is the mean of S_G."""
        chosen = self.scores if blocks is None else self.scores[list(blocks)]
        return int(chosen.mean(0).argmax()) == self.target


def encode(pipe: StableDiffusion3Pipeline, scene: ToyScene) -> torch.Tensor:
    """(1, 4, 16, 16) scaled latents of a scene."""
    return pipe.vae.encode(to_tensor(scene.image[None])).latent_dist.mode() * pipe.vae.config.scaling_factor


@torch.no_grad()
def noun_hits(pipe: StableDiffusion3Pipeline, scenes: list[ToyScene], t: float) -> list[Hit]:
    """Every noun that names one thing, alone as caption, at noise ``t``: which true mask does its map prefer?

    For the log and for measurements; nothing learns from masks.
    """
    found, generator = [], torch.Generator().manual_seed(0)
    for number, scene in enumerate(scenes):
        x0 = encode(pipe, scene)
        x = (1 - t) * x0 + t * torch.randn(x0.shape, generator=generator)
        asked = [i for i, thing in enumerate(scene.things) if names_one(Phrase(thing.category), scene.things, i)]
        if not asked:
            continue
        nouns, masks = [scene.things[i].category for i in asked], torch.from_numpy(scene.masks)
        with record_attention(pipe.transformer) as record:
            velocity(pipe, x.expand(len(asked), -1, -1, -1), torch.full((len(asked),), t), words(pipe, nouns))
        for row, (i, noun) in enumerate(zip(asked, nouns, strict=True)):
            last = token_positions(pipe.tokenizer, noun, (0, len(noun)))[-1]
            layers = torch.stack([m[row, ..., last] for m in record.maps.values()])
            layers = resize(layers, (masks.shape[1], masks.shape[2]))
            scores = torch.stack([generative_score(c, masks) for c in layers])
            found.append(Hit(number, scene.things[i].tint is not None, i, scores))
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


def train_dit(
    work: Path,
    pipe: StableDiffusion3Pipeline,
    *,
    steps: int = 10_000,
    scenes: int = 20_000,
    stop_at: int | None = None,
    every: int = 250,
    bf16: bool = False,
) -> None:
    """Train the transformer and the text encoder of ``pipe`` in place, or go on, in ``work/dit``; both end averaged.

    Args:
        every: steps between checkpoints, each with a line in ``work/dit/log.jsonl``.
        bf16: compute the transformer in bfloat16 (weights stay in fp32); faster only where the processor has it.
    """
    images, things = load_scenes(work / "scenes", "train", scenes)
    latents = encode_all(pipe.vae, images, work / f"latents-{scenes}.pt")
    turning = np.random.default_rng(0)
    recoloured = encode_all(pipe.vae, images, work / f"latents-{scenes}-recoloured.pt", lambda x: recolour(x, turning))
    held = min(64, max(2, len(latents) // 100))  # the last ones are only looked at, for the log
    share = np.array([1.0 + sum(t.tint is not None for t in th) for th in things[: len(latents) - held]])
    share /= share.sum()  # scenes with tinted things come more often
    looked_at = [make_scene("val", i) for i in range(LOOKED_AT)]
    held_texts = [caption(th, np.random.default_rng(i), everything=1.0) for i, th in enumerate(things[-held:])]

    def loss(generator: torch.Generator, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = rng.choice(len(share), BATCH, p=share)
        t = torch.sigmoid(T_MEAN + T_STD * torch.randn(BATCH, generator=generator))
        turned = (rng.uniform(size=BATCH) < RECOLOURED) & (t.numpy() < SHOWN_BELOW)
        texts = [say(things[i], rng, 0.0 if no_colour else TINTS) for i, no_colour in zip(rows, turned, strict=True)]
        x0 = torch.where(torch.from_numpy(turned)[:, None, None, None], recoloured[rows], latents[rows])
        noise = torch.randn(x0.shape, generator=generator)
        x = torch.lerp(x0, noise, t[:, None, None, None])
        text = words(pipe, texts)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16), _Unfused() if bf16 else nullcontext():
            guess = velocity(pipe, x, t, text)
        return (guess.float() - (noise - x0)).square().mean(), {}

    def report(model: torch.nn.Module) -> dict[str, float]:
        """Gain of the right caption by t, and nouns found: in all blocks' mean, of tinted things, by block."""
        row = {}
        for t in (0.3, 0.6, 0.8):
            right, wrong = caption_losses(pipe, latents[-held:], held_texts, t)
            row[f"gain_{t}"] = (1 - right.mean() / wrong.mean()).item()
        hits = noun_hits(pipe, looked_at, 0.1)
        tinted = [h.right() for h in hits if h.tinted]
        row |= {"localisation": float(np.mean([h.right() for h in hits])), "tinted": float(np.mean(tinted or [0]))}
        blocks = len(hits[0].scores)
        return row | {f"block_{b}": float(np.mean([h.right([b]) for h in hits])) for b in range(blocks)}

    options: dict[str, Any] = {"steps": steps, "stop_at": stop_at, "every": every, "report": report}
    for _ in train(learning(pipe), loss, work / "dit", lr=1.5e-3, muon=5e-3, **options):
        pass


def main(
    work: Annotated[Path, typer.Option(help="Folder for scenes, checkpoints and logs.")] = Path("build/toy"),
    out: Annotated[Path | None, typer.Option(help="Where the pipeline goes; nowhere if not given.")] = None,
    start: Annotated[Path | None, typer.Option(help="Saved pipeline to go on from; default: from scratch.")] = None,
    steps: int = 10_000,
    stop_at: int | None = None,
    every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 250,
    scenes: Annotated[int, typer.Option(help="Training scenes.")] = 20_000,
    layers: Annotated[int, typer.Option(help="Transformer blocks, from scratch.")] = 6,
    patch: Annotated[int, typer.Option(help="Side of a patch in latents, from scratch.")] = 2,
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16; faster only where the processor has it.")] = False,
) -> None:
    """Train, resuming where the last run in ``work`` stopped, and save the averaged weights as fp16 safetensors."""
    pipe = load_dit(start) if start else start_pipeline(layers, patch)
    train_dit(work, pipe, steps=steps, scenes=scenes, stop_at=stop_at, every=every, bf16=bf16)
    if out:
        save_dit(pipe, out)
        shutil.copy(work / "dit" / "log.jsonl", out / "log.jsonl")
        typer.echo(f"-> {out}")


if __name__ == "__main__":
    typer.run(main)
