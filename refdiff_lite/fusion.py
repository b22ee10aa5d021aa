"""Lesson 7: the generative score, the discriminative score, and their sum."""

from __future__ import annotations

import torch


def generative_score(word: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """``S_G(i) = mean of c inside M_i - mean of c outside M_i`` (paper, section 3; the official code agrees).

    Args:
        word: map c, (H, W) in [0, 1]. masks: (N, H, W) bool.

    Returns:
        S_G, (N,) float32 in [-1, 1]; an empty side counts as 0.
    """
    flat, c = masks.flatten(1).float(), word.flatten().float()
    area = flat.sum(1)
    inside = flat @ c
    return inside / area.clamp_min(1) - (c.sum() - inside) / (c.numel() - area).clamp_min(1)


def fuse(s_g: torch.Tensor, s_d: torch.Tensor, weight_g: float, weight_d: float) -> torch.Tensor:
    """``S = alpha S_G + (1 - alpha) S_D``, (N,). The paper's alpha = 0.1 is weight_g = 0.1, weight_d = 0.9."""
    return weight_g * s_g + weight_d * s_d
