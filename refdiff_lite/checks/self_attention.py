"""Checks of lesson 4."""

import torch

from ..attention import min_max
from . import Check


def view(attention: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """Where the pixel at (row, column) looks: (h, w, h*w) attention to an (h, w) map."""
    h, w = attention.shape[:2]
    return attention[row, column].reshape(h, w)


def _views() -> list[tuple]:
    attention = torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(0)).softmax(-1)
    return [(attention, 0, 2), (attention, 1, 1)]


check_view = Check(
    view,
    {
        "the keys run row by row: reshape them to (h, w), not to (w, h)": (
            lambda a, row, column: a[row, column].reshape(a.shape[1], a.shape[0])
        ),
        "that is the other direction: who looks at this pixel, not where it looks": (
            lambda a, row, column: a[..., row * a.shape[1] + column]
        ),
        "row comes first: the pixel is attention[row, column]": (
            lambda a, row, column: a[column % a.shape[0], row].reshape(a.shape[:2])
        ),
        "reshape the h*w keys to a map of (h, w)": lambda a, row, column: a[row, column],
    },
    "a pixel's view of the picture, also where the picture is not square",
    cases=_views,
)


def flow(word: torch.Tensor, matrix: torch.Tensor, steps: int) -> torch.Tensor:
    """A flat word map after some steps along self-attention, stretched to [0, 1]."""
    for _ in range(steps):
        word = matrix @ word
    return (word - word.min()) / (word.max() - word.min())


def _matrix() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    matrix = (3 * torch.randn(6, 6, generator=generator)).softmax(-1)
    return [(torch.rand(6, generator=generator), matrix, steps) for steps in (1, 3)]


check_flow = Check(
    flow,
    {
        "each pixel must collect from where *it* looks: matrix @ word, not its transpose": (
            lambda word, matrix, steps: flow(word, matrix.T, steps)
        ),
        "the map has flowed, but it is not stretched to [0, 1] yet": (
            lambda word, matrix, steps: torch.linalg.matrix_power(matrix, steps) @ word
        ),
        "that is one step more than was asked for": lambda word, matrix, steps: flow(word, matrix, steps + 1),
        "nothing has flowed: multiply by the matrix, once per step": lambda word, matrix, steps: min_max(word[None])[0],
    },
    "propagation: pixels that look at each other come to agree",
    cases=_matrix,
)


def nearest(rows: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Index of the nearest centre (k, d) of every row (n, d)."""
    return torch.cdist(rows, centres).argmin(1)


check_nearest = Check(
    nearest,
    {
        "that finds the nearest row of every centre; ask for the nearest centre of every row": (
            lambda rows, centres: torch.cdist(rows, centres).argmin(0)
        ),
        "that is the farthest centre: the distance must be smallest": (
            lambda rows, centres: torch.cdist(rows, centres).argmax(1)
        ),
        "that is the distance; the index of the nearest centre is asked for": (
            lambda rows, centres: torch.cdist(rows, centres).amin(1)
        ),
    },
    "that is one half of k-means; the other half moves each centre to the mean of its rows",
    cases=lambda: [
        (torch.rand(7, 4, generator=g), torch.rand(3, 4, generator=g)) for g in [torch.Generator().manual_seed(1)]
    ],
)
