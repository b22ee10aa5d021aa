"""What the words of a prompt mean to a given picture, for any model that can begin with one: noise it, look once, stop."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .images import load_image
from .networks.families import family_of
from .networks.words import model_of
from .record import Record
from .trace import trace


def look(
    pipe: Any,
    image: str | Path | Image.Image | np.ndarray,
    prompt: str,
    *,
    noise: float = 0.1,
    steps: int = 50,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    call: Mapping[str, Any] | None = None,
    **which: Any,
) -> Record:
    """Attention over a picture, from one run of the denoiser, as Ref-Diff reads it of Stable Diffusion.

    It stops behind the last recorded layer.

    Args:
        pipe: a pipeline of any family that :mod:`trace` knows. diffusers' own image to image pipeline of the same networks is
            used where there is one; PixArt, Sana, Lumina and FLUX.2 begin with the noised latents instead.
        image: whatever :func:`images.load_image` takes.
        noise: share of the way to pure noise, in (0, 1]; rounded to one of ``steps`` of the sampler.
        size: (H, W) that the model sees; by default the picture's own, rounded to what its latents allow.
        call: more arguments of the pipeline's call, such as max_sequence_length.
        which: layers, kind, scores, over, heads, words and max_bytes, as :func:`trace.trace` takes them.

    Raises:
        ValueError: no encoder for pictures, a noise out of range, or what :func:`trace.trace` refuses.
    """
    if not 1 <= int(steps * noise) <= steps:
        raise ValueError(f"noise={noise} of {steps} steps: choose a share from {1 / steps:g} to 1")
    if not isinstance(prompt, str):
        raise ValueError("look takes one prompt; a picture under another prompt is another look")
    family = family_of(getattr(model_of(pipe), "_orig_mod", model_of(pipe)))
    pixels = load_image(image)
    multiple = max(16, getattr(pipe, "vae_scale_factor", 8))  # Sana's latents are 32 pixels wide
    height, width = (multiple * max(1, round(n / multiple)) for n in size or pixels.shape[:2])
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    painter = painter_of(pipe)
    if painter is None:
        painter, start = _noised(pipe, picture, noise, seed)
    else:
        start = dict(image=picture, strength=noise, num_inference_steps=steps)
    painter.set_progress_bar_config(disable=True)
    known = inspect.signature(type(painter).__call__).parameters
    asked = {"height": height, "width": width, "use_resolution_binning": False}
    asked |= {} if family.guidance == "calls" else {"guidance_scale": 1.0}
    with trace(painter, steps=[0], stop=True, **which) as record, torch.no_grad():
        painter(
            prompt=prompt,
            **start,
            generator=torch.Generator().manual_seed(seed),
            **{name: value for name, value in asked.items() if name in known} | dict(call or {}),
        )
    record.images = [pixels]
    return record


def painter_of(pipe: Any) -> Any:
    """diffusers' pipeline of the same networks that begins with a picture, or None where it has none.

    Raises:
        ValueError: the networks are of a kind that cannot encode a picture.
    """
    from diffusers import AutoPipelineForImage2Image

    if getattr(pipe, "vae", None) is None or not hasattr(pipe.vae, "encode"):
        raise ValueError(f"{type(pipe).__name__} has no encoder for pictures, so it can only be traced while it paints")
    try:
        painter = AutoPipelineForImage2Image.from_pipe(pipe)
    except ValueError:
        return None
    return painter if "strength" in inspect.signature(type(painter).__call__).parameters else None


def _noised(pipe: Any, picture: Image.Image, noise: float, seed: int) -> tuple[Any, dict[str, Any]]:
    """The pipeline with a plain scheduler, and what makes it begin with the noised picture, for a single step."""
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

    vae, config = pipe.vae, pipe.vae.config
    x = pipe.image_processor.preprocess(picture, picture.height, picture.width).to(pipe._execution_device, vae.dtype)
    with torch.no_grad():
        if hasattr(pipe, "_patchify_latents"):  # FLUX.2 normalises patches
            x0 = pipe._encode_vae_image(x, None)
        else:
            found = vae.encode(x)
            x0 = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latent
            x0 = (x0 - (config.get("shift_factor") or 0)) * config.scaling_factor
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed)).to(x0)
    if pipe.scheduler.config.get("use_flow_sigmas") or "Flow" in type(pipe.scheduler).__name__:
        scheduler: Any = FlowMatchEulerDiscreteScheduler()  # without a shift: the noise is the one that was asked for
        start, latents = {"sigmas": [noise]}, (1 - noise) * x0 + noise * eps
    else:
        scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        t = max(0, round(noise * scheduler.config.num_train_timesteps) - 1)
        start, latents = {"timesteps": [t]}, scheduler.add_noise(x0, eps, torch.tensor([t]))
    return type(pipe)(**pipe.components | {"scheduler": scheduler}), {"latents": latents.to(pipe.dtype), **start}
