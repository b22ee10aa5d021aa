"""Checks of lesson 12."""

import numpy as np
import torch

from . import Check, Guess

guess_share = Guess("the words' share of a pixel's attention", "abc")


def pixels_to_words(q_pixels: torch.Tensor, k_pixels: torch.Tensor, k_words: torch.Tensor) -> torch.Tensor:
    """What pixels pay to words in one head, (n, tokens): the softmax runs over pixels' and words' keys."""
    k = torch.cat([k_pixels, k_words])
    return (q_pixels @ k.T / k.shape[1] ** 0.5).softmax(-1)[:, len(k_pixels) :]


def _queries() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    return [
        tuple(torch.randn(rows, d, generator=generator) for rows in (n, n, tokens))
        for n, tokens, d in ((4, 3, 2), (9, 5, 8))
    ]


check_pixels_to_words = Check(
    pixels_to_words,
    {
        "the softmax there runs over the words alone; pixels' keys share in it": (
            lambda q, kp, kw: (q @ kw.T / kw.shape[1] ** 0.5).softmax(-1)
        ),
        "divide by the root of the width d before the softmax": (
            lambda q, kp, kw: (q @ torch.cat([kp, kw]).T).softmax(-1)[:, len(kp) :]
        ),
        "those are the shares of the pixels; return the words'": (
            lambda q, kp, kw: (q @ torch.cat([kp, kw]).T / kp.shape[1] ** 0.5).softmax(-1)[:, : len(kp)]
        ),
        "divided by the width d itself, not by its root": (
            lambda q, kp, kw: (q @ torch.cat([kp, kw]).T / kp.shape[1]).softmax(-1)[:, len(kp) :]
        ),
        "those are scores; the softmax over all keys is missing": (
            lambda q, kp, kw: q @ kw.T / kw.shape[1] ** 0.5
        ),
    },
    "what pixels pay to words, with everybody at the table",
    cases=_queries,
)  # fmt: skip


def quarter(attention: np.ndarray, tokens: int, text_first: bool) -> np.ndarray:
    """The pixels-to-words quarter of a joint matrix (n + tokens, n + tokens)."""
    return attention[tokens:, :tokens] if text_first else attention[:-tokens, -tokens:]


check_quarter = Check(
    quarter,
    {
        "right where the words come first; where pixels do, it cuts elsewhere": lambda a, n, first: a[n:, :n],
        "right where pixels come first; where the words do, it cuts elsewhere": lambda a, n, first: a[:-n, -n:],
        "that is what words pay to pixels; the pixels ask, so they are the rows": (
            lambda a, n, first: quarter(a.T, n, first).T
        ),
        "text_first is taken the wrong way round": lambda a, n, first: quarter(a, n, not first),
    },
    "the same quarter, whoever comes first",
    cases=[(np.arange(size**2, dtype=float).reshape(size, size), n, first) for size, n in ((5, 2), (7, 3)) for first in (True, False)],
)  # fmt: skip


def luck(val_hits: np.ndarray, test_hits: np.ndarray) -> float:
    """By how much the share of val's best block falls on test: both (studies, blocks, nouns); mean over studies."""
    val, test = np.mean(val_hits, -1), np.mean(test_hits, -1)
    rows, best = np.arange(len(val)), val.argmax(1)
    return float((val[rows, best] - test[rows, best]).mean())


def _studies() -> list[tuple]:
    rng = np.random.default_rng(0)
    return [tuple(rng.random((2, studies, blocks, nouns)) < 0.7) for studies, blocks, nouns in ((7, 4, 9), (11, 6, 15))]


check_luck = Check(
    luck,
    {
        "that is the best on test; whoever chooses does not know test": (
            lambda v, t: float((np.mean(v, -1).max(1) - np.mean(t, -1).max(1)).mean())
        ),
        "choose in every study anew, not once for all": (
            lambda v, t: float((np.mean(v, -1) - np.mean(t, -1))[:, np.mean(v, (0, 2)).argmax()].mean())
        ),
        "the sign is turned: val minus test is asked for": lambda v, t: -luck(v, t),
        "that is the gap of all blocks; only the chosen one's is asked for": (
            lambda v, t: float(np.mean(v) - np.mean(t))
        ),
    },
    "what choosing alone pretends to win",
    cases=_studies,
)  # fmt: skip
