"""Checks of lesson 2."""

from collections.abc import Callable
from itertools import pairwise

import torch

from . import Check, Guess

guess_worst = Guess("the worst disagreement with five times shorter steps", "abc")

Denoiser = Callable[[torch.Tensor, float], torch.Tensor]


def move(x: torch.Tensor, noise: torch.Tensor, a: float, to: float) -> torch.Tensor:
    """A DDIM step between two values of alpha bar (lesson 1)."""
    return to**0.5 * (x - (1 - a) ** 0.5 * noise) / a**0.5 + (1 - to) ** 0.5 * noise


LEVELS = [0.999, 0.9, 0.6, 0.3, 0.1]


def wave(x: torch.Tensor, a: float) -> torch.Tensor:
    """A stand-in for the UNet: it hangs on x and on the level, as a UNet does."""
    return torch.sin(3 * x) * (1 - a) ** 0.5


def _start(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


def invert(move: Callable, predict: Denoiser, x: torch.Tensor, levels: list[float]) -> torch.Tensor:
    """Plain inversion: at every level, predict there and step to the next noisier one."""
    for a, to in pairwise(levels):
        x = move(x, predict(x, a), a, to)
    return x


def _downwards(move: Callable, predict: Denoiser, x: torch.Tensor, levels: list[float]) -> torch.Tensor:
    return invert(move, predict, x, levels[::-1])


def _from_the_start(move: Callable, predict: Denoiser, x: torch.Tensor, levels: list[float]) -> torch.Tensor:
    noise = predict(x, levels[0])
    for a, to in pairwise(levels):
        x = move(x, noise, a, to)
    return x


def _one_step_only(move: Callable, predict: Denoiser, x: torch.Tensor, levels: list[float]) -> torch.Tensor:
    return move(x, predict(x, levels[0]), levels[0], levels[1])


check_invert = Check(
    invert,
    {
        "that goes from noisy to clean: inversion climbs, from the first level to the last": _downwards,
        "the noise is predicted once and kept: predict again at every step": _from_the_start,
        "only one step was taken: loop over all pairs of neighbours": _one_step_only,
    },
    "that is DDIM inversion: three lines",
    cases=lambda: [(move, wave, _start(2, 3), LEVELS), (move, wave, -_start(4), LEVELS[:3])],
)


def fixed_point(move: Callable, predict: Denoiser, x: torch.Tensor, a: float, to: float, repeats: int) -> torch.Tensor:
    """One inversion step whose noise is predicted where the step lands."""
    guess = move(x, predict(x, a), a, to)
    for _ in range(repeats):
        guess = move(x, predict(guess, to), a, to)
    return guess


def _drifts(move: Callable, predict: Denoiser, x: torch.Tensor, a: float, to: float, repeats: int) -> torch.Tensor:
    guess = move(x, predict(x, a), a, to)
    for _ in range(repeats):
        guess = move(guess, predict(guess, to), a, to)
    return guess


def _wrong_level(move: Callable, predict: Denoiser, x: torch.Tensor, a: float, to: float, repeats: int) -> torch.Tensor:
    guess = move(x, predict(x, a), a, to)
    for _ in range(repeats):
        guess = move(x, predict(guess, a), a, to)
    return guess


def _plain(move: Callable, predict: Denoiser, x: torch.Tensor, a: float, to: float, repeats: int) -> torch.Tensor:
    return move(x, predict(x, a), a, to)


check_fixed_point = Check(
    fixed_point,
    {
        "every repeat must start again from x, and only the noise comes from the guess": _drifts,
        "the guess lies at the level `to`: predict its noise there, not at `a`": _wrong_level,
        "that is the plain step: repeat it with the noise predicted at the guess": _plain,
    },
    "fixed point: the step now uses the very noise that the way back will use",
    cases=lambda: [(move, wave, _start(2, 3), 0.6, 0.4, 1), (move, wave, _start(5), 0.9, 0.8, 3)],
)

check_why = Check(
    "c",
    {
        "DDIM draws nothing: with the same noise it paints the same picture every time": "a",
        "the VAE's loss is there, but both pictures that we compare went through the VAE": "b",
        "the schedule is exactly the same on both ways": "d",
    },
    "yes: on the way up the noise is predicted at one point, on the way down at another",
)


def way_back(move: Callable, predict: Denoiser, x: torch.Tensor, levels: list[float]) -> torch.Tensor:
    """Plain DDIM from the noisiest level to the clean end: at every level, predict there."""
    return invert(move, predict, x, levels[::-1])


def _predicts_ahead(move: Callable, predict: Denoiser, x: torch.Tensor, levels: list[float]) -> torch.Tensor:
    for a, to in pairwise(levels[::-1]):
        x = move(x, predict(x, to), a, to)
    return x


def _upwards_and_ahead(move: Callable, predict: Denoiser, x: torch.Tensor, levels: list[float]) -> torch.Tensor:
    return _predicts_ahead(move, predict, x, levels[::-1])


check_way_back = Check(
    way_back,
    {
        "that is the code as it was given": _upwards_and_ahead,
        "one fault is left: it still climbs; painting starts at the last level": invert,
        "one fault is left: x stands at `a` when its noise is predicted, not yet at `to`": _predicts_ahead,
    },
    "painted: the noise is always predicted where x stands",
    cases=lambda: [(move, wave, _start(2, 3), LEVELS), (move, wave, _start(5), LEVELS[1:4])],
)


def unpaint_pair(
    move: Callable, predict: Denoiser, x: torch.Tensor, y: torch.Tensor, levels: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Undo, last line first, a sampler that moves x by y's noise and then y by the new x's."""
    for a, to in pairwise(levels):
        y = move(y, predict(x, a), a, to)
        x = move(x, predict(y, to), a, to)
    return x, y


def _same_order(move: Callable, predict: Denoiser, x: torch.Tensor, y: torch.Tensor, levels: list[float]) -> tuple:
    for a, to in pairwise(levels):
        x = move(x, predict(y, a), a, to)
        y = move(y, predict(x, to), a, to)
    return x, y


def _both_at_once(move: Callable, predict: Denoiser, x: torch.Tensor, y: torch.Tensor, levels: list[float]) -> tuple:
    for a, to in pairwise(levels):
        x, y = move(x, predict(y, a), a, to), move(y, predict(x, a), a, to)
    return x, y


def _one_level(move: Callable, predict: Denoiser, x: torch.Tensor, y: torch.Tensor, levels: list[float]) -> tuple:
    for a, to in pairwise(levels):
        y = move(y, predict(x, a), a, to)
        x = move(x, predict(y, a), a, to)
    return x, y


check_unpaint_pair = Check(
    unpaint_pair,
    {
        "the order is that of painting: undo the last line first": _same_order,
        "x and y must be undone one after the other: x's noise was predicted at the y that you have just recovered": (
            _both_at_once
        ),
        "once y is recovered it stands at `to`, the noisier level: its noise must be predicted there": _one_level,
    },
    "exact: every noise on the way up is one that was used on the way down",
    cases=lambda: [
        (move, wave, _start(2, 3), _start(2, 3) + 0.1, LEVELS),
        (move, wave, _start(5), _start(5).flip(0), LEVELS[:3]),
    ],
)
