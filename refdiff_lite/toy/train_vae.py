"""Train the toy autoencoder: 128×128 images to 16×16×4 latents and back (``AutoencoderKL``, f = 8).

First encoder and decoder together, on crops; then the decoder alone, on whole pictures: the encoder's part is soon
learned, to draw from the latents what was lost takes far longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from tqdm.auto import tqdm

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


def reconstruction(found: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss of decoded images, squared and absolute error together, and their PSNR for the log."""
    error = found - x
    mse = error.square().mean()
    return 4 * mse + 0.3 * error.abs().mean(), {"psnr": -10 * math.log10(mse.item() / 4)}


@torch.no_grad()
def encode_all(
    vae: AutoencoderKL, images: np.ndarray, cache: Path, change: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> torch.Tensor:
    """Scaled latents (N, 4, 16, 16) of all images after ``change``, the mode of each posterior; kept in ``cache``."""
    if not cache.exists():
        parts = [
            vae.encode(to_tensor(change(images[i : i + 64]))).latent_dist.mode().half()
            for i in tqdm(range(0, len(images), 64), "encoding", mininterval=10)
        ]
        partial = cache.with_suffix(".partial")
        torch.save(torch.cat(parts), partial)
        partial.replace(cache)
    return torch.load(cache, weights_only=True).float() * vae.config.scaling_factor


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
        value, log = reconstruction(vae.decode(posterior.sample(generator)).sample, x)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return value + 1e-4 * kl, log | {"kl": kl.item()}

    @torch.no_grad()
    def report(model: torch.nn.Module) -> dict[str, float]:
        latents = vae.encode(held).latent_dist.mode()
        return {"val_psnr": psnr(vae.decode(latents).sample, held), "latent_std": latents.std().item()}

    for _ in train(vae, loss, work / "vae", steps=steps, lr=lr, stop_at=stop_at, every=250, report=report):
        pass
    vae.register_to_config(scaling_factor=1 / report(vae)["latent_std"])
    return vae


def train_decoder(
    work: Path, vae: AutoencoderKL, *, steps: int = 6_000, scenes: int = 20_000, stop_at: int | None = None
) -> None:
    """Train the decoder of ``vae`` in place, or go on training it, in ``work/decoder``; the latents stay as they are."""
    vae.requires_grad_(False)
    decoder = torch.nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}).requires_grad_(True)
    images, _ = load_scenes(work / "scenes", "train", scenes)
    latents = encode_all(vae, images, work / f"latents-{scenes}.pt") / vae.config.scaling_factor
    held = to_tensor(load_scenes(work / "scenes", "val", 32)[0])
    with torch.no_grad():
        held_latents = vae.encode(held).latent_dist.mode()

    def loss(generator: torch.Generator, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = np.sort(rng.integers(0, len(images), BATCH // 4))
        return reconstruction(vae.decode(latents[rows]).sample, to_tensor(images[rows]))

    @torch.no_grad()
    def report(model: torch.nn.Module) -> dict[str, float]:
        return {"val_psnr": psnr(vae.decode(held_latents).sample, held)}

    for _ in train(
        decoder, loss, work / "decoder", steps=steps, lr=1e-3, muon=4e-3, ema=0.995, stop_at=stop_at, report=report
    ):
        pass
