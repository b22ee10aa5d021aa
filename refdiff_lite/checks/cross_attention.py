"""Checks of lesson 3."""

import re
from collections.abc import Iterator

import torch

from .. import attention as library
from . import Check, Guess

guess_which = Guess('what "purple" in front does to the map of "dog"', "abc")


def attention(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) of (n, d) queries and (m, d) keys."""
    return (q @ k.T / q.shape[1] ** 0.5).softmax(-1)


def _queries() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((5, 3, 4), (3, 3, 7), (2, 6, 9))
    return [(torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator)) for n, m, d in sizes]


check_attention = Check(
    attention,
    {
        "the softmax goes over the tokens: each pixel shares out one unit of attention (dim=-1)": (
            lambda q, k: (q @ k.T / q.shape[1] ** 0.5).softmax(0)
        ),
        "divide by the square root of d before the softmax": lambda q, k: (q @ k.T).softmax(-1),
        "that divides by d: take its square root": lambda q, k: (q @ k.T / q.shape[1]).softmax(-1),
        "2 is the square root of d only where d is 4": lambda q, k: (q @ k.T / 2).softmax(-1),
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
    two = [torch.rand(2, 3, generator=generator), 5 * torch.rand(4, 6, generator=generator)]
    three = [scale * torch.rand(h, w, generator=generator) for h, w, scale in ((3, 2, 1), (6, 4, 3), (2, 2, 2))]
    return [(two, (8, 12)), (three, (9, 5))]


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


def token(text: str, word: str, offsets: list[tuple[int, int]]) -> int:
    """Position of the last token that overlaps with the word, which must stand alone in the text."""
    found = re.search(rf"\b{re.escape(word)}\b", text)
    assert found
    return max(i for i, (a, b) in enumerate(offsets) if a < found.end() and b > found.start())


def _as_given(text: str, word: str, offsets: list[tuple[int, int]]) -> int:
    start = text.index(word)
    return next(i for i, (a, b) in enumerate(offsets) if a <= start < b)


def _first_piece(text: str, word: str, offsets: list[tuple[int, int]]) -> int:
    found = re.search(rf"\b{re.escape(word)}\b", text)
    assert found
    return next(i for i, (a, b) in enumerate(offsets) if a <= found.start() < b)


def _last_piece_of_letters(text: str, word: str, offsets: list[tuple[int, int]]) -> int:
    end = text.index(word) + len(word)
    return next(i for i, (a, b) in enumerate(offsets) if a < end <= b)


_TEXTS = [
    ("woman and man", "man", [(0, 0), (0, 5), (6, 9), (10, 13), (13, 13)]),
    ("the purple dog", "dog", [(0, 0), (0, 3), (4, 10), (11, 14), (14, 14)]),
    ("one hippopotamus here", "hippopotamus", [(0, 0), (0, 3), (4, 9), (9, 13), (13, 16), (17, 21), (21, 21)]),
    ("carpet under car", "car", [(0, 0), (0, 3), (3, 6), (7, 12), (13, 16), (16, 16)]),
]
check_token = Check(
    token,
    {
        "that is the code as it was given": _as_given,
        "one fault is left: of a word in pieces, read the last, which has seen the others": _first_piece,
        "one fault is left: these letters also stand inside another word": _last_piece_of_letters,
    },
    "the right word, and its last piece",
    cases=_TEXTS,
)


class Keys:
    """Keys that can be gone through once."""

    def __init__(self, keys: torch.Tensor) -> None:
        self.keys, self.used = keys, False

    def __iter__(self) -> Iterator[torch.Tensor]:
        if self.used:
            raise RuntimeError("the keys come only once; keep what you need of each")
        self.used = True
        return iter(self.keys)


def column(q: torch.Tensor, keys: Keys, token: int) -> torch.Tensor:
    """A token's share, from the whole table."""
    return attention(q, torch.stack(list(keys)))[:, token]


def _overflows(q: torch.Tensor, keys: Keys, token: int) -> torch.Tensor:
    powers = (q @ torch.stack(list(keys)).T / q.shape[1] ** 0.5).exp()
    return powers[:, token] / powers.sum(1)


def _forgets_to_rescale(q: torch.Tensor, keys: Keys, token: int) -> torch.Tensor:
    largest, total, wanted = torch.full((len(q),), -torch.inf), torch.zeros(len(q)), torch.zeros(len(q))
    for i, key in enumerate(keys):
        logit = q @ key / q.shape[1] ** 0.5
        largest = torch.maximum(largest, logit)
        total = total + (logit - largest).exp()
        wanted = logit if i == token else wanted
    return (wanted - largest).exp() / total


def _columns() -> list[tuple]:
    generator = torch.Generator().manual_seed(1)
    sizes = ((5, 4, 3, 2, 1.0), (3, 6, 5, 0, 30.0), (4, 9, 7, 8, 60.0))
    return [
        (size * torch.randn(n, d, generator=generator), Keys(torch.randn(m, d, generator=generator)), token)
        for n, m, d, token, size in sizes
    ] + [(torch.tensor([[1000.0, 0.0], [0.0, 1000.0]]), Keys(torch.eye(2)), 1)]


check_column = Check(
    column,
    {
        "exp of a large logit is infinite, and infinity over infinity is NaN: subtract the largest first": _overflows,
        "when a larger logit comes, the old sum is measured from the old maximum: rescale it": _forgets_to_rescale,
    },
    "this is how fast attention works inside: one pass, a running maximum and a running sum",
    cases=_columns,
)
