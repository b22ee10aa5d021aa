"""Lesson 2: DDIM inversion, its fixed-point repair, and the way back.

Ref-Diff itself adds random noise; inversion is this package's variant (``RefDiffConfig(noise="ddim")``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from .latents import ddim_step, ddim_timesteps

Denoiser = Callable[[torch.Tensor, int], torch.Tensor]
"""(x_t, t) -> predicted noise of the same shape."""


def guided(
    unet: Any,
    text: Float[Tensor, "1 tokens width"],
    guidance: float = 1.0,
    empty: Float[Tensor, "1 tokens width"] | None = None,
) -> Denoiser:
    """The UNet as a function of (x_t, t), with classifier-free guidance if ``guidance`` is not 1.

    Args:
        text: encoded prompt (1, tokens, width). ``empty``: the encoded empty prompt, needed for guidance.
    """
    if guidance != 1 and empty is None:
        raise ValueError("guidance other than 1 needs the encoded empty prompt")

    @torch.no_grad()
    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        if guidance == 1 or empty is None:
            return unet(x, t, text).sample
        without, with_text = unet(x.repeat(2, 1, 1, 1), t, torch.cat([empty, text])).sample.chunk(2)
        return without + guidance * (with_text - without)

    return predict


def invert(
    scheduler: Any,
    denoiser: Denoiser,
    x0: Float[Tensor, "1 c h w"],
    num_steps: int = 50,
    *,
    until: int | None = None,
    fixed_point: int = 0,
    progress: bool = False,
) -> list[Float[Tensor, "1 c h w"]]:
    """DDIM inversion: the noise that deterministic DDIM would turn into x_0.

    Plain inversion predicts the noise of x at the *lower* timestep and assumes that it is the same at the upper
    one. ``fixed_point`` repeats each step with the prediction at the point it led to, until the two agree.

    Args:
        until: stop after this many steps (default: all).

    Returns:
        latents at every timestep of :func:`ddim_timesteps`, x_0 first: ``until + 1`` tensors.

    Raises:
        ValueError: the scheduler predicts something else than noise.
    """
    if scheduler.config.prediction_type != "epsilon":
        raise ValueError(f"inversion needs a noise-predicting model, not {scheduler.config.prediction_type!r}")
    times = ddim_timesteps(scheduler, num_steps)[:until]
    path = [x0]
    for before, t in tqdm(list(zip([-1, *times], times, strict=False)), "inverting", disable=not progress):
        x = path[-1]
        guess = ddim_step(scheduler, x, denoiser(x, max(before, 0)), before, t)
        for _ in range(fixed_point):
            guess = ddim_step(scheduler, x, denoiser(guess, t), before, t)
        path.append(guess)
    return path


def denoise(
    scheduler: Any,
    denoiser: Denoiser,
    x: Float[Tensor, "1 c h w"],
    num_steps: int = 50,
    *,
    start: int | None = None,
    progress: bool = False,
) -> list[Float[Tensor, "1 c h w"]]:
    """Deterministic DDIM from the timestep with index ``start - 1`` down to x_0.

    Returns:
        all latents on the way, x_0 last. The inverse of :func:`invert` with ``until=start``.
    """
    times = ddim_timesteps(scheduler, num_steps)[:start]
    path = [x]
    for t, to in tqdm(list(zip(times[::-1], [*times[:-1][::-1], -1], strict=False)), "denoising", disable=not progress):
        path.append(ddim_step(scheduler, path[-1], denoiser(path[-1], t), t, to))
    return path
