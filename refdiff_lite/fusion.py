"""Lesson 7: the generative score, the sum of both scores, and the choice of a proposal."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .config import Variant


def generative_score(word: Float[Tensor, "h w"], masks: Bool[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """``S_G(i) = mean of c inside M_i - mean of c outside M_i`` (paper, section 3; the official code agrees).

    Both sums are taken directly: the outside as "all minus inside" would lose every digit where a mask covers nearly
    the whole image.

    Args:
        word: map c, (H, W) in [0, 1]. masks: (N, H, W) bool.

    Returns:
        S_G, (N,) float32 in [-1, 1]; an empty side counts as 0.
    """
    c = word.flatten().float()

    def mean(side: Bool[Tensor, " pixels"]) -> Float[Tensor, ""]:
        return (c * side).sum() / side.sum().clamp_min(1)

    scores = [mean(mask) - mean(~mask) for mask in masks.flatten(1)]  # one by one: no float copy of all of them
    return torch.stack(scores) if scores else c.new_zeros(0)


def fuse(s_g: Float[Tensor, " n"], s_d: Float[Tensor, " n"], weight_g: float, weight_d: float) -> Float[Tensor, " n"]:
    """``S = alpha S_G + (1 - alpha) S_D``, (N,). The paper's alpha = 0.1 is weight_g = 0.1, weight_d = 0.9."""
    return weight_g * s_g + weight_d * s_d


def score(
    variant: Variant,
    s_g: Float[Tensor, " n"],
    s_d: Float[Tensor, " n"],
    weight_g: float,
    weight_d: float,
    otsu: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, " n"]:
    """S, (N,): what a variant maximises over the proposals.

    Args:
        otsu: between-class variance of each mask, where g chooses by that and not by S_G.
    """
    if variant == "full":
        return fuse(s_g, s_d, weight_g, weight_d)
    if variant == "g" and otsu is not None:
        return otsu
    return s_d if variant == "ds" else s_g


def choose(scores: Float[Tensor, " n"]) -> int | None:
    """Index of the best proposal (the first of equals), None where there is none.

    Raises:
        ValueError: a score is not a finite number, so that no order exists.
    """
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"{int((~torch.isfinite(scores)).sum())} of {len(scores)} scores are not finite numbers")
    return int(scores.argmax()) if len(scores) else None
