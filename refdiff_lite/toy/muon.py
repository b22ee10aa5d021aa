"""Muon: momentum whose every update is made orthogonal, for weight matrices.

K. Jordan, "Muon: an optimizer for hidden layers in neural networks", 2024. ``torch.optim.Muon`` takes no convolutions,
and computes in bfloat16, which a CPU without it only imitates: over ten times as slow as float32.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


def orthogonal(g: torch.Tensor) -> torch.Tensor:
    """Nearly U Vᵀ of g = U Σ Vᵀ, (m, n): five Newton–Schulz steps bring all large singular values to 0.7 to 1.2.

    The steps are polynomials of g gᵀ, so they run on the small square matrix, and g is multiplied once at the end.
    """
    x = g / (g.norm() + 1e-7)
    if tall := len(x) > x.shape[1]:
        x = x.T
    gram, factor = x @ x.T, torch.eye(len(x)).to(x)
    for _ in range(5):
        step = 3.4445 * torch.eye(len(x)).to(x) - 4.7750 * gram + 2.0315 * gram @ gram
        factor, gram = step @ factor, step @ gram @ step
    x = factor @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum (0.95), made orthogonal; a kernel (out, in, h, w) counts as a matrix (out, in * h * w)."""

    def __init__(self, params: Iterable[torch.Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # ty: ignore[incompatible-method-override]  # without AdamW's closure
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 0.05)
                update = orthogonal(p.grad.lerp(momentum, 0.95).flatten(1))
                scale = max(1, len(update) / update.shape[1]) ** 0.5
                p.add_(update.view(p.shape), alpha=-group["lr"] * scale)
