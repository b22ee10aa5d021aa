"""Checks of lesson 1."""

import numpy as np
import torch

from ..evaluation.metrics import psnr
from . import Check, Guess

guess_caption = Guess("where the caption is worth most", "abc")


def _pictures() -> list[tuple]:
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(0, 256, size).astype(np.uint8) for size in ((8, 8, 3), (8, 8, 3), (5, 9, 3)))
    return [(a, b), (a, (a // 2 + 60).astype(np.uint8)), (c, 255 - c)]


def _wrapped(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a - b) ** 2)))


def _half_wrapped(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square((a - b).astype(float)).mean()))


check_psnr = Check(
    psnr,
    {
        "uint8 wraps around twice, in the difference and in the square: convert to float before both": _wrapped,
        "the square is mended, the difference is not: uint8 gives 254 for 3 - 5. Convert before you subtract": _half_wrapped,
        "the decibel of a ratio of squares is 10 log10, not 20": lambda a, b: 2 * psnr(a, b),
        "the peak of a uint8 picture is 255, not 1": lambda a, b: psnr(a, b) - 20 * np.log10(255),
        "square the errors before the mean": lambda a, b: float(
            10 * np.log10(255**2 / np.abs(a.astype(float) - b.astype(float)).mean() ** 2)
        ),
    },
    "PSNR is right; every halving of the error adds 6 dB",
    cases=_pictures,
)


def schedule(start: float, end: float, steps: int) -> torch.Tensor:
    """Stable Diffusion's a_t: betas whose square roots are evenly spaced."""
    return torch.cumprod(1 - torch.linspace(start**0.5, end**0.5, steps) ** 2, 0)


check_schedule = Check(
    schedule,
    {
        'these betas are evenly spaced; Stable Diffusion\'s "scaled_linear" spaces their square roots evenly': (
            lambda start, end, steps: torch.cumprod(1 - torch.linspace(start, end, steps), 0)
        ),
        "that is what one step keeps; what is left after all steps up to t is the product of them (cumprod)": (
            lambda start, end, steps: 1 - torch.linspace(start**0.5, end**0.5, steps) ** 2
        ),
        "beta is what a step takes away: multiply the 1 - beta": (
            lambda start, end, steps: torch.cumprod(torch.linspace(start**0.5, end**0.5, steps) ** 2, 0)
        ),
        "square the square roots again: linspace(...) ** 2": (
            lambda start, end, steps: torch.cumprod(1 - torch.linspace(start**0.5, end**0.5, steps), 0)
        ),
    },
    "that is the schedule of Stable Diffusion 1.5, number for number",
    cases=[(0.00085, 0.012, 1000), (0.01, 0.2, 10)],
)


def step(x: torch.Tensor, noise: torch.Tensor, a: float, to: float) -> torch.Tensor:
    """One DDIM step between two values of alpha bar."""
    return to**0.5 * (x - (1 - a) ** 0.5 * noise) / a**0.5 + (1 - to) ** 0.5 * noise


def _latents() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, *size, generator=generator) for size in ((1, 4, 3, 3), (2, 3, 5, 7))]
    return [(x, noise, a, to) for (x, noise), a, to in zip(pairs, (0.3, 0.9), (0.6, 0.4), strict=True)]


check_step = Check(
    step,
    {
        "that is the predicted x_0: now bring it to the new noise level": (
            lambda x, noise, a, to: (x - (1 - a) ** 0.5 * noise) / a**0.5
        ),
        "the noise is put back at the old level: its weight is sqrt(1 - to)": (
            lambda x, noise, a, to: to**0.5 * (x - (1 - a) ** 0.5 * noise) / a**0.5 + (1 - a) ** 0.5 * noise
        ),
        "a and to are variances: take their square roots": (
            lambda x, noise, a, to: to * (x - (1 - a) * noise) / a + (1 - to) * noise
        ),
        "the two noise levels are exchanged: x is at a, and goes to `to`": (
            lambda x, noise, a, to: step(x, noise, to, a)
        ),
    },
    "one DDIM step, and it works in both directions: remember that for lesson 2",
    cases=_latents,
)

check_guidance = Check(
    lambda empty, prompt, w: empty + w * (prompt - empty),
    {
        "start from the empty prompt: w = 1 must give the prompt's own prediction": (
            lambda empty, prompt, w: prompt + w * (prompt - empty)
        ),
        "that leads away from the prompt: the direction is prompt - empty": (
            lambda empty, prompt, w: empty + w * (empty - prompt)
        ),
        "that only mixes and makes nothing stronger; w may be larger than 1": (
            lambda empty, prompt, w: (empty + w * prompt) / (1 + w)
        ),
    },
    "guidance: w = 0 forgets the prompt, w = 1 follows it, w > 1 overdoes it",
    cases=lambda: [
        (*torch.randn(2, n, n + 1, generator=torch.Generator().manual_seed(n)), w)
        for n, w in ((2, 0.0), (3, 1.0), (4, 7.5))
    ],
)


def noisy_step(
    x: torch.Tensor, noise: torch.Tensor, a: float, to: float, sigma: float, z: torch.Tensor
) -> torch.Tensor:
    """A DDIM step in which fresh noise z takes part with standard deviation sigma (Song et al. 2021, equation 12)."""
    return to**0.5 * (x - (1 - a) ** 0.5 * noise) / a**0.5 + (1 - to - sigma**2) ** 0.5 * noise + sigma * z


def _noisy() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(3, *size, generator=generator) for size in ((1, 4, 3, 3), (2, 3, 5, 4), (1, 2, 2, 6))]
    constants = ((0.3, 0.6, 0.4), (0.8, 0.9, 0.2), (0.5, 0.7, 0.0))
    return [(x, e, *c, z) for (x, e, z), c in zip(made, constants, strict=True)]


check_noisy_step = Check(
    noisy_step,
    {
        "now there is too much noise: the predicted part must make room for the fresh one": (
            lambda x, noise, a, to, sigma, z: step(x, noise, a, to) + sigma * z
        ),
        "variances add, standard deviations do not: the predicted part's weight is not sqrt(1 - to) - sigma": (
            lambda x, noise, a, to, sigma, z: step(x, noise, a, to) + sigma * (z - noise)
        ),
        "sigma is a standard deviation: its square is the variance that the predicted part gives up": (
            lambda x, noise, a, to, sigma, z: (
                to**0.5 * (x - (1 - a) ** 0.5 * noise) / a**0.5 + (1 - to - sigma) ** 0.5 * noise + sigma * z
            )
        ),
        "the fresh noise is missing": lambda x, noise, a, to, sigma, z: noisy_step(
            x, noise, a, to, sigma, torch.zeros_like(z)
        ),
    },
    "sigma = 0 is DDIM; with the largest sigma that fits, it is the sampler that diffusion models began with",
    cases=_noisy,
)
