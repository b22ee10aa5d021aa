"""Checks of lesson 10."""

import torch

from ..toy.train_clip import contrastive_loss
from . import Check, Guess

check_sees = Check(
    "b",
    {
        "a crop of a scene shows background on all sides of a thing; where it ends must be guessed": "a",
        "the UNet saw whole scenes with captions; nothing in them is cut out": "c",
        "no mask was handed over, true; but a thing on black is cut along its outline, and the picture shows it": "d",
    },
    "yes: the outline is in the picture, though no mask was handed over; real CLIP was shown no such thing",
)


def average(start: float, values: list[float], ema: float) -> float:
    """The running average of a weight, as ``training.train`` keeps it."""
    for step, value in enumerate(values):
        keep = min(ema, (1 + step) / (10 + step))
        start = keep * start + (1 - keep) * value
    return start


def _constant(start: float, values: list[float], ema: float) -> float:
    for value in values:
        start = ema * start + (1 - ema) * value
    return start


def _swapped(start: float, values: list[float], ema: float) -> float:
    for step, value in enumerate(values):
        keep = min(ema, (1 + step) / (10 + step))
        start = (1 - keep) * start + keep * value
    return start


def _from_one(start: float, values: list[float], ema: float) -> float:
    for step, value in enumerate(values, 1):
        keep = min(ema, (1 + step) / (10 + step))
        start = keep * start + (1 - keep) * value
    return start


check_average = Check(
    average,
    {
        "with a constant rate the random start stays in the average for long: use min(ema, (1 + step) / (10 + step))": _constant,
        "most of the average is kept, only a little of the new value comes in": _swapped,
        "that is the mean of all values: old ones must fade": lambda start, values, ema: float(
            torch.tensor([start, *values]).mean()
        ),
        "steps count from 0: the first value comes in with 1 - 1 / 10": _from_one,
    },
    "the average follows at once in the beginning, and smooths more and more",
    cases=[
        (0.0, [1.0, 2.0, 3.0], 0.999),
        (5.0, [float(n % 3) for n in range(60)], 0.8),
        (-2.0, [0.5 * n for n in range(200)], 0.95),
    ],
)


def _similarities() -> list[tuple]:
    """Tables of four and of six, with captions that come once, twice and three times."""
    generator = torch.Generator().manual_seed(0)
    few, many = (3 * torch.randn(n, n, generator=generator) for n in (4, 6))
    return [
        (few, ["a cat", "a dog", "a car", "a tree"]),
        (few, ["a cat", "a dog", "a cat", "a cat"]),
        (many, ["a bus", "a dog", "the bus", "a dog", "a bus", "a tree"]),
    ]


def _targets(logits: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    cross = torch.nn.functional.cross_entropy
    return (cross(logits, same) + cross(logits.T, same)) / 2


def _same(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[float(a == b) for b in texts] for a in texts])


def _images_only(logits: torch.Tensor, texts: list[str]) -> torch.Tensor:
    same = _same(texts)
    return torch.nn.functional.cross_entropy(logits, same / same.sum(1, keepdim=True))


check_contrastive = Check(
    contrastive_loss,
    {
        "that is one direction: captions must find their images, too (the transpose)": _images_only,
        "two equal captions are both right: share the target between them": lambda logits, texts: _targets(
            logits, torch.eye(len(texts))
        ),
        "a target must sum to 1: divide each row by how many captions are equal": lambda logits, texts: _targets(
            logits, _same(texts)
        ),
        "take the mean of the two directions, not their sum": lambda logits, texts: 2 * contrastive_loss(logits, texts),
    },
    "right: each image chooses among all captions, each caption among all images",
    cases=_similarities,
)

guess_accuracy = Guess("percentage of new pictures that CLIP names correctly")


def gain(right: torch.Tensor, wrong: torch.Tensor) -> float:
    """Share of the mean error that the right caption saves."""
    return float(1 - right.mean() / wrong.mean())


def _errors() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    many = 0.01 + torch.rand(2, 9, generator=generator)
    return [
        (torch.tensor([0.10, 0.02, 0.30]), torch.tensor([0.12, 0.05, 0.31])),
        (torch.tensor([0.2, 0.4]), torch.tensor([0.2, 0.3])),
        (many[0], many[1]),
    ]


check_gain = Check(
    gain,
    {
        "that is still a mean of ratios, ruled by the pictures with small errors: take the two means first": (
            lambda right, wrong: float(1 - (right / wrong).mean())
        ),
        "that is the error itself: make it a share of the error with a wrong caption": lambda right, wrong: float(
            wrong.mean() - right.mean()
        ),
        "a share of the wrong caption's error: divide by wrong, not by right": lambda right, wrong: float(
            wrong.mean() / right.mean() - 1
        ),
        "that is what is left; the gain is what is saved": lambda right, wrong: float(right.mean() / wrong.mean()),
    },
    "0: the caption is ignored; the more, the more the network reads",
    cases=_errors,
)
