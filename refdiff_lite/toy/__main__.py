"""``python -m refdiff_lite.toy``: train all three networks, resuming where the last run stopped, and save them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer

from ..files import data_dir
from .train_clip import save_clip, text_encoder, train_clip
from .train_unet import pipeline, train_unet
from .train_vae import train_decoder, train_vae


def main(
    work: Annotated[Path, typer.Option(help="Folder for scenes, checkpoints and logs.")] = Path("build/toy"),
    out: Annotated[Path | None, typer.Option(help="Where the networks go; default: the bundled ones.")] = None,
    vae_steps: int = 2_400,
    decoder_steps: int = 6_000,
    clip_steps: int = 4_200,
    unet_steps: int = 17_200,
    scenes: Annotated[int, typer.Option(help="Training scenes.")] = 20_000,
    closeups: Annotated[int, typer.Option(help="Training close-ups.")] = 40_000,
) -> None:
    """Train the toy networks from images and captions only, and write them as fp16 safetensors."""
    out = out or data_dir() / "models" / "toy"
    vae = train_vae(work, steps=vae_steps, scenes=scenes)
    train_decoder(work, vae, steps=decoder_steps, scenes=scenes)
    clip, tokenizer = train_clip(work, steps=clip_steps, scenes=scenes, closeups=closeups)
    text = text_encoder(clip, tokenizer)  # where the UNet's begins
    unet = train_unet(work, vae.requires_grad_(False), text, tokenizer, steps=unet_steps, scenes=scenes)
    save_clip(clip, tokenizer, out / "clip")
    for part in (vae, unet):  # safetensors takes no channels-last weights
        part.to(memory_format=torch.contiguous_format)
    partial = out / "sd.partial"
    pipeline(vae.half(), unet.half(), text.half(), tokenizer).save_pretrained(partial)
    shutil.rmtree(out / "sd", ignore_errors=True)
    os.replace(partial, out / "sd")
    for name in ("vae", "decoder", "clip", "unet"):
        shutil.copy(work / name / "log.jsonl", out / f"{name}-log.jsonl")
    typer.echo(f"-> {out}")


if __name__ == "__main__":
    typer.run(main)
