"""Checks of lesson 4."""

import torch

from ..attention import min_max
from . import Check, Guess

guess_flow = Guess("nouns found after one step of flow", "abc")


def view(attention: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """Where the pixel at (row, column) looks: (h, w, h*w) attention to an (h, w) map."""
    h, w = attention.shape[:2]
    return attention[row, column].reshape(h, w)


def _views() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    wide, tall = (torch.rand(h, w, h * w, generator=generator).softmax(-1) for h, w in ((2, 3), (5, 4)))
    return [(wide, 0, 2), (wide, 1, 1), (tall, 3, 1)]


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
    return [
        (torch.rand(n, generator=generator), (3 * torch.randn(n, n, generator=generator)).softmax(-1), steps)
        for n, steps in ((6, 1), (4, 3), (9, 2))
    ]


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
        (torch.rand(n, d, generator=g), torch.rand(k, d, generator=g))
        for n, d, k, g in [(7, 4, 3, torch.Generator().manual_seed(1)), (5, 2, 6, torch.Generator().manual_seed(2))]
    ],
)


def end(word: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Limit of a stretched map: the second eigenvector, with the sign of the map's part along it."""
    values, vectors = torch.linalg.eig(matrix.double())
    order = values.abs().argsort(descending=True)
    vectors = vectors[:, order]
    part = torch.linalg.solve(vectors, word.double().to(vectors.dtype))[1]
    limit = (part * vectors[:, 1]).real.float()
    return (limit - limit.min()) / (limit.max() - limit.min())


def _looked_at(word: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    return flow(torch.ones_like(word), matrix.T, 1000)


def _few(word: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    return flow(word, matrix, 2)


def _many_then_stretch(word: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    for _ in range(500):
        word = matrix @ word
    return (word - word.min()) / (word.max() - word.min())


def _similar() -> list[tuple]:
    generator = torch.Generator().manual_seed(4)
    cases = []
    for n, d in ((9, 2), (12, 1), (7, 3)):
        places = torch.randn(n, d, generator=generator)
        cases.append((torch.rand(n, generator=generator), (-torch.cdist(places, places).square()).softmax(-1)))
    return [*cases, (1 - cases[0][0], cases[0][1])]


check_end = Check(
    end,
    {
        "many steps and one stretch in the end: what you stretch is rounding errors": _many_then_stretch,
        "that is who is looked at, the stationary distribution of the transpose": _looked_at,
        "those are the first steps, not the end": _few,
    },
    "the second eigenvector, by repeated multiplication: this is how power iteration works",
    cases=_similar,
    tolerance=1e-2,
)
