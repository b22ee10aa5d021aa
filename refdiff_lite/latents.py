"""Lesson 1: images to latents and back, forward noise, and one DDIM step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from .networks.compat import execution_device


def encode(vae: Any, image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> Float[Tensor, "1 c y x"]:
    """Image to the mode of its latents, scaled as the UNet expects them: no sampling, so no hidden noise.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: (height, width) that the image is resized to first; multiples of the VAE's factor (8).

    Returns:
        latents x_0, (1, C, height / 8, width / 8), where the VAE computes and in its dtype.
    """
    picture = Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS)
    x = rearrange(torch.from_numpy(np.array(picture)), "h w rgb -> 1 rgb h w")
    with torch.no_grad():
        found = vae.encode(x.to(execution_device(vae), vae.dtype) / 127.5 - 1)
        # AutoencoderTiny has no distribution, its latents are what they are.
        latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        return latents * vae.config.scaling_factor


def decode(vae: Any, latents: Float[Tensor, "1 c y x"]) -> UInt8[np.ndarray, "h w 3"]:
    """Latents (1, C, h, w) to an image (H, W, 3) uint8 RGB."""
    with torch.no_grad():
        x = vae.decode(latents.to(execution_device(vae), vae.dtype) / vae.config.scaling_factor).sample[0]
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def ddim_timesteps(scheduler: Any, num_steps: int) -> list[int]:
    """The ascending timesteps of a DDIM run: 20 steps of SD 1.5 are 1, 51, 101, …, 951."""
    scheduler.set_timesteps(num_steps)
    return [int(t) for t in reversed(scheduler.timesteps)]


def alpha_bar(scheduler: Any, t: int) -> float:
    """Share of the image's variance left at timestep t (the paper's a_t); t < 0 is the clean end."""
    return float(scheduler.alphas_cumprod[t] if t >= 0 else scheduler.final_alpha_cumprod)


def add_noise(
    scheduler: Any, x0: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], t: int
) -> Float[Tensor, "b c h w"]:
    """``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n`` (paper, forward process)."""
    a = alpha_bar(scheduler, t)
    return a**0.5 * x0 + (1 - a) ** 0.5 * noise


def ddim_step(
    scheduler: Any, x: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], t: int, to: int
) -> Float[Tensor, "b c h w"]:
    """Move x from timestep t to timestep ``to`` along the predicted noise: down to denoise, up to invert (eta = 0)."""
    a = alpha_bar(scheduler, t)
    return add_noise(scheduler, (x - (1 - a) ** 0.5 * noise) / a**0.5, noise, to)
