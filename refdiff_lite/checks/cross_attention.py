"""Checks of lesson 3."""

import torch

from .. import attention as library
from . import Check


def attention(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) of (n, d) queries and (m, d) keys."""
    return (q @ k.T / q.shape[1] ** 0.5).softmax(-1)


def _queries() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, 4, generator=generator), torch.randn(m, 4, generator=generator)) for n, m in ((5, 3), (3, 3))
    ]


check_attention = Check(
    attention,
    {
        "the softmax goes over the tokens: each pixel shares out one unit of attention (dim=-1)": (
            lambda q, k: (q @ k.T / q.shape[1] ** 0.5).softmax(0)
        ),
        "divide by the square root of d before the softmax": lambda q, k: (q @ k.T).softmax(-1),
        "that divides by d: take its square root": lambda q, k: (q @ k.T / q.shape[1]).softmax(-1),
        "these are the logits; the softmax is missing": lambda q, k: q @ k.T / q.shape[1] ** 0.5,
    },
    "attention is right: every row sums to 1",
    cases=_queries,
)

check_position = Check(
    3,
    {
        "the text encoder puts a start token in front: count it": 2,
        "positions are counted from 0, and the start token has 0": 4,
    },
    "right: start, the, purple, dog; 0 to 3",
)


def word_map(layers: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Resize each layer's map, take the mean, stretch to [0, 1]."""
    return library.min_max(torch.stack([library.resize(m, size) for m in layers]).mean(0))


def _layers() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    return [([torch.rand(2, 3, generator=generator), 5 * torch.rand(4, 6, generator=generator)], (8, 12))]


check_word_map = Check(
    word_map,
    {
        "min-max comes last, once, on the mean (each layer by itself is what the official code does)": (
            lambda layers, size: torch.stack([library.resize(library.min_max(m), size) for m in layers]).mean(0)
        ),
        "stretch the mean to [0, 1]: subtract its minimum, divide by its range": (
            lambda layers, size: torch.stack([library.resize(m, size) for m in layers]).mean(0)
        ),
        "dividing by the maximum is not enough: the lowest value must become 0": (
            lambda layers, size: (s := torch.stack([library.resize(m, size) for m in layers]).mean(0)) / s.max()
        ),
        "only the first layer was used: take the mean of all": (
            lambda layers, size: library.min_max(library.resize(layers[0], size))
        ),
    },
    "that is the map c of the paper",
    cases=_layers,
)
