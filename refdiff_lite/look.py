"""What the words of a prompt mean to a given picture, for any model that can begin with one: noise it, look once, stop."""

from __future__ import annotations

import inspect
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
    **which: Any,
) -> Record:
    """Attention over a picture, from one run of the denoiser, as Ref-Diff reads it of Stable Diffusion.

    The pipeline of the same networks that makes pictures of pictures does it; it stops behind the last recorded layer.

    Args:
        pipe: a pipeline that has an image to image sibling: Stable Diffusion 1 to 3.5, SDXL, FLUX.1, Qwen-Image, Z-Image.
        image: whatever :func:`images.load_image` takes.
        noise: share of the way to pure noise, in (0, 1]; rounded to one of ``steps`` of the sampler.
        size: (H, W) that the model sees; by default the picture's own, rounded to multiples of 16.
        which: layers, kind, scores, over, heads, words and max_bytes, as :func:`trace.trace` takes them.

    Raises:
        ValueError: no such sibling, a noise out of range, or what :func:`trace.trace` refuses.
    """
    from diffusers import AutoPipelineForImage2Image

    if not 1 <= int(steps * noise) <= steps:
        raise ValueError(f"noise={noise} of {steps} steps: choose a share from {1 / steps:g} to 1")
    if not isinstance(prompt, str):
        raise ValueError("look takes one prompt; a picture under another prompt is another look")
    family = family_of(getattr(model_of(pipe), "_orig_mod", model_of(pipe)))
    try:
        painter = AutoPipelineForImage2Image.from_pipe(pipe)
    except ValueError as error:
        raise ValueError(f"{type(pipe).__name__} has no sibling that begins with a picture ({error})") from error
    painter.set_progress_bar_config(disable=True)
    pixels = load_image(image)
    height, width = (max(16, round(n / 16) * 16) for n in size or pixels.shape[:2])
    known = inspect.signature(type(painter).__call__).parameters
    asked = {"height": height, "width": width} | ({} if family.guidance == "calls" else {"guidance_scale": 1.0})
    with trace(painter, steps=[0], stop=True, **which) as record, torch.no_grad():
        painter(
            prompt=prompt,
            image=Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS),
            strength=noise,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            **{name: value for name, value in asked.items() if name in known},
        )
    record.images = [pixels]
    return record
