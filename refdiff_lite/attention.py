"""Lessons 3 and 4: record attention beside the running UNet, and turn it into maps of words and of pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from einops import rearrange

from .compat import cross_attention_modules, self_attention_modules

Kind = Literal["cross", "self"]
_EPS = 1e-8


@dataclass
class AttentionMaps:
    """Attention of each recorded layer, mean over its heads and over the UNet calls.

    ``maps[name]`` is (batch, h, w, keys) float32: for cross-attention the keys are the prompt's tokens, for
    self-attention the h * w pixels, row by row. h and w come from the latents, never from a square root.
    Recorded with ``per_head``, it is (batch, heads, h, w, keys).
    """

    kind: Kind
    scores: str
    maps: dict[str, torch.Tensor] = field(default_factory=dict)
    calls: int = 0

    def __repr__(self) -> str:
        layers = ", ".join(f"{name} {tuple(m.shape[1:])}" for name, m in self.maps.items())
        return f"AttentionMaps({self.kind}, {self.scores}, mean of {self.calls} calls: {layers})"


def _grid(queries: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a layer with this many queries over latents of this size."""
    for factor in (1, 2, 4, 8, 16):
        h, w = -(-height // factor), -(-width // factor)
        if h * w == queries:
            return h, w
    raise ValueError(f"{queries} attention queries do not fit latents of {height}×{width}")


@contextmanager
def record_attention(
    unet: torch.nn.Module,
    layers: str = "",
    kind: Kind = "cross",
    scores: Literal["softmax", "logits"] = "softmax",
    per_head: bool = False,
) -> Iterator[AttentionMaps]:
    """Record attention while the UNet runs, without changing what it computes.

    ``softmax(q k^T / sqrt(d))`` of the wanted layers is computed again beside the UNet's own fused attention, so the
    output stays bit-identical; heads are averaged at once and calls summed, so memory does not grow with steps.

    Args:
        layers: regular expression that a layer's name must match (``up_blocks.0``); "" takes all.
        scores: "softmax" as in the paper, "logits" (before the softmax) as in the official code.
        per_head: keep the heads apart, to look at each; the stages of the method want their mean.

    Raises:
        ValueError: no layer matches, or a recording of this kind is already running on this UNet.
    """
    found = (cross_attention_modules if kind == "cross" else self_attention_modules)(unet)
    wanted = {name: module for name, module in found.items() if re.search(layers, name)}
    if not wanted:
        raise ValueError(f"layers={layers!r} matches none of: {', '.join(found)}")
    running = unet.__dict__.setdefault("_refdiff_recording", set())
    if kind in running:
        raise ValueError(f"{kind}-attention of this UNet is being recorded already; leave that block first")
    record = AttentionMaps(kind, scores)
    sums: dict[str, torch.Tensor] = {}
    size: list[int] = [0, 0]

    def before_unet(module: Any, args: tuple, kwargs: dict) -> None:
        size[:] = (args[0] if args else kwargs["sample"]).shape[-2:]
        record.calls += 1

    def before_layer(name: str) -> Any:
        def hook(module: Any, args: tuple, kwargs: dict) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            context = kwargs.get("encoder_hidden_states")
            context = hidden if context is None else context
            with torch.no_grad():
                q = rearrange(module.to_q(hidden), "b n (heads d) -> b heads n d", heads=module.heads)
                k = rearrange(module.to_k(context), "b n (heads d) -> b heads n d", heads=module.heads)
                logits = torch.einsum("bhqd,bhkd->bhqk", q, k).float() * module.scale
                heads = logits.softmax(-1) if scores == "softmax" else logits
                h, w = _grid(hidden.shape[1], *size)
                found_here = rearrange(heads if per_head else heads.mean(1), "... (h w) keys -> ... h w keys", h=h, w=w)
            sums[name] = sums[name] + found_here if name in sums else found_here

        return hook

    handles = [unet.register_forward_pre_hook(before_unet, with_kwargs=True)]
    handles += [m.register_forward_pre_hook(before_layer(n), with_kwargs=True) for n, m in wanted.items()]
    running.add(kind)
    try:
        yield record
    finally:
        running.discard(kind)
        for handle in handles:
            handle.remove()
    record.maps = {name: total / record.calls for name, total in sums.items()}


def min_max(x: torch.Tensor) -> torch.Tensor:
    """Stretch the last two dimensions to [0, 1]; a flat map becomes zeros, not NaN (an eps of 1e-8)."""
    low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
    return (x - low) / (high - low + _EPS)


def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(..., h, w) to (..., H, W), bilinear."""
    flat = x.reshape(-1, 1, *x.shape[-2:])
    out = torch.nn.functional.interpolate(flat, size, mode="bilinear", align_corners=False)
    return out.reshape(*x.shape[:-2], *size)


def word_map(
    attention: AttentionMaps, tokens: list[int], size: tuple[int, int], normalise: Literal["mean", "each"] = "mean"
) -> torch.Tensor:
    """The map c of a word: mean over layers, resized to the image, stretched to [0, 1] (paper, section 3).

    Args:
        tokens: positions of the word's pieces; the last one is read, which has seen those before it.
        size: (H, W) of the image.
        normalise: min-max once after the mean over layers (paper) or for every layer before it (official).

    Returns:
        c, (H, W) float32 in [0, 1].
    """
    layers = [m[0, ..., tokens[-1]] for m in attention.maps.values()]
    if not layers:
        raise ValueError("nothing was recorded: run the UNet inside record_attention and read the maps after it")
    if normalise == "each":
        layers = [min_max(m) for m in layers]
    return min_max(torch.stack([resize(m, size) for m in layers]).mean(0))


def propagate(word: torch.Tensor, attention: AttentionMaps, steps: int = 1) -> torch.Tensor:
    """Let a word's map flow along self-attention: pixels that look at each other come to agree.

    Args:
        word: (h, w) map at any size; it is resized to the grid of the recorded self-attention.
        attention: recorded with ``kind="self"``; the layers used are those of its finest grid.

    Returns:
        (h, w) map in [0, 1] at that grid.
    """
    grid = max((m.shape[1:3] for m in attention.maps.values()), key=lambda hw: hw[0] * hw[1])
    layers = [m[0] for m in attention.maps.values() if m.shape[1:3] == grid]
    matrix = rearrange(torch.stack(layers).mean(0), "h w keys -> (h w) keys")
    flat = resize(word, (grid[0], grid[1])).flatten().to(matrix)
    for _ in range(steps):
        flat = matrix @ flat
    return min_max(flat.reshape(grid))
