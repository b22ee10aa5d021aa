"""Train the toy autoencoder: 128×128 images to 16×16×4 latents and back (``AutoencoderKL``, f = 8)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from .training import load_scenes, to_tensor, train

CROP, BATCH = 64, 16


def make_vae(width: tuple[int, ...] = (16, 16, 64, 128)) -> AutoencoderKL:
    """A small AutoencoderKL whose residual branches start at zero, so that learning starts near a linear code."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(width),
        up_block_types=("UpDecoderBlock2D",) * len(width),
        block_out_channels=width,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=128,
    )
    for name, module in vae.named_modules():
        if name.endswith("conv2"):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    return vae.to(memory_format=torch.channels_last)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [-1, 1], from the mean squared error over all of them."""
    return -10 * math.log10(((a.clamp(-1, 1) - b.clamp(-1, 1)) / 2).square().mean().item())


def train_vae(
    work: Path, *, steps: int = 2_400, scenes: int = 20_000, stop_at: int | None = None, lr: float = 2e-3
) -> AutoencoderKL:
    """Train, or go on training, in ``work/vae``; returns the model with averaged weights and its scaling factor set."""
    torch.manual_seed(0)
    images, _ = load_scenes(work / "scenes", "train", scenes)
    held = to_tensor(load_scenes(work / "scenes", "val", 32)[0])
    vae = make_vae()

    def loss(generator: torch.Generator, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = rng.integers(0, len(images), BATCH)
        at = rng.integers(0, images.shape[1] - CROP + 1, (BATCH, 2))
        x = to_tensor(np.stack([images[i, r : r + CROP, c : c + CROP] for i, (r, c) in zip(rows, at, strict=True)]))
        posterior = vae.encode(x).latent_dist
        error = vae.decode(posterior.sample(generator)).sample - x
        mse = error.square().mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        value = 4 * mse + 0.3 * error.abs().mean() + 1e-4 * kl
        return value, {"psnr": -10 * math.log10(mse.item() / 4), "kl": kl.item()}

    @torch.no_grad()
    def report(model: torch.nn.Module) -> dict[str, float]:
        latents = vae.encode(held).latent_dist.mode()
        return {"val_psnr": psnr(vae.decode(latents).sample, held), "latent_std": latents.std().item()}

    for _ in train(vae, loss, work / "vae", steps=steps, lr=lr, stop_at=stop_at, every=250, report=report):
        pass
    vae.register_to_config(scaling_factor=1 / report(vae)["latent_std"])
    return vae
