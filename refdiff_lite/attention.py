"""Lessons 3 and 4: record attention beside the running UNet, and turn it into maps of words and of pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from .images import square_corner
from .networks import recorder
from .networks.families import Kind, Layout
from .networks.recorder import Call, run_for_attention
from .networks.scores import Seen, Wanted, size_of
from .networks.scores import scores as attention_scores

__all__ = [
    "AttentionMaps", "Kind", "finest", "finest_self_attention", "min_max", "propagate", "record_attention", "resize",
    "run_for_attention", "word_map",
]  # fmt: skip
_EPS = 1e-8


@dataclass
class AttentionMaps:
    """Attention of each recorded layer, mean over its heads (unless asked for apart) and over the calls of the model.

    ``maps[name]`` is (batch, h, w, keys) float32, or (batch, heads, h, w, keys) with heads apart. For "cross", "reverse"
    and "output" the last dimension are the prompt's tokens, or those of them that ``tokens`` names; for "self" the h * w
    pixels, row by row; for "text" the maps are (batch, tokens, tokens). h and w come from the latents, never from a root.
    """

    kind: Kind
    scores: str
    maps: dict[str, torch.Tensor] = field(default_factory=dict)
    calls: int = 0
    tokens: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        layers = ", ".join(f"{name} {tuple(m.shape[1:])}" for name, m in self.maps.items())
        return f"AttentionMaps({self.kind}, {self.scores}, mean of {self.calls} calls: {layers})"

    def key(self, token: int) -> int:
        """Where the last dimension of the maps holds the token at this position of the prompt."""
        if self.tokens is None:
            return token
        if token not in self.tokens:
            raise ValueError(f"token {token} was not recorded, only {', '.join(map(str, self.tokens))}")
        return self.tokens.index(token)

    def row(self, row: int | None = None) -> list[torch.Tensor]:
        """Each layer's maps of one row of the batch, mean over heads that were kept apart: (h, w, keys).

        Raises:
            ValueError: nothing was recorded, there are several rows and none is named, or there is no such row.
        """
        if not self.maps:
            raise ValueError("nothing was recorded: run the model inside record_attention and read the maps after it")
        rows = len(next(iter(self.maps.values())))
        if row is None and rows > 1:
            raise ValueError(
                f"the maps are of {rows} rows of a batch: say which with row=0 to {rows - 1}. In a guided batch one half "
                "belongs to the empty prompt, in Stable Diffusion the first"
            )
        if not -rows <= (row or 0) < rows:
            raise ValueError(f"row={row}: the batch has {rows} rows")
        apart = 4 if self.kind == "text" else 5  # dimensions with the heads apart
        return [m[row or 0].mean(0) if m.ndim == apart else m[row or 0] for m in self.maps.values()]


@contextmanager
def record_attention(
    model: torch.nn.Module,
    layers: str | Sequence[str] = "",
    kind: Kind = "cross",
    scores: Literal["softmax", "logits"] = "softmax",
    *,
    over: Literal["all", "own"] = "all",
    tokens: Sequence[int] | None = None,
    heads: Literal["mean", "each"] | Sequence[int] = "mean",
    max_bytes: int = 2**30,
) -> Generator[AttentionMaps]:
    """Record attention while the diffusion model runs, without changing what it computes.

    ``softmax(q k^T / sqrt(d))`` of the wanted layers is computed again beside the model's own fused attention, from the
    queries, keys and mask that it really uses, so the output stays bit-identical; heads are averaged at once and calls
    summed, so memory does not grow with steps. Attention slicing, CPU offload, LoRA and other users of the model in other
    threads do not disturb it; a compiled model runs uncompiled meanwhile. Blocks may be nested to record several kinds.

    Args:
        model: a UNet or a transformer of one of :data:`networks.families.FAMILIES`.
        layers: regular expression that a layer's name must match (``up_blocks.0``), or names; "" takes all.
        kind: "cross" (pixels to words), "self" (pixels to pixels) and, where text and image are one sequence, "reverse"
            (words to pixels), "text" (words to words) and "output" (products of what pixels and words got).
        scores: "softmax" as in the paper, "logits" (before the softmax) as in the official code.
        over: keys that share in the softmax: all that the model has, or those of this kind alone, such as the words.
        tokens: keep these of the text's tokens only; None keeps all.
        heads: "each" keeps the heads apart, numbers keep those apart.
        max_bytes: refuse to hold more than this.

    Raises:
        ValueError: no layer matches, a recording of this kind is already running on this model, or, within the block,
            the maps would need more than ``max_bytes``, or calls differ in batch, size or text, so that a mean of them
            would mean nothing.
        RuntimeError: a layer's attention cannot be seen, as with flash or flex back ends; says which and what to do.
    """
    chosen = None if tokens is None else tuple(tokens)
    wanted = Wanted(kind, scores, over, chosen, heads)
    record = AttentionMaps(kind, scores, tokens=wanted.tokens)
    sums: dict[str, torch.Tensor] = {}
    added: Counter[str] = Counter()
    last: list[Call] = []

    def add(call: Call, name: str, seen: Seen, layout: Layout) -> None:
        if not last or call is not last[0]:
            if last and not call.same_text(last[0]):
                raise ValueError(
                    "this call of the model has other texts than the one before, perhaps the empty prompt of guidance; a "
                    "mean of both would mean nothing. Record them one by one, or a whole generation with trace"
                )
            last[:] = [call]
            record.calls += 1
        if name not in sums:
            check_room(f"{kind}-attention of {name}", size_of(seen, layout, wanted), sums.values(), max_bytes)
        found = attention_scores(seen, layout, wanted)
        if name in sums and sums[name].shape != found.shape:
            raise ValueError(
                f"{name} gave maps {tuple(found.shape)} after {tuple(sums[name].shape)}: the batch or the size changed, and "
                "there is no mean of both; record the calls one by one"
            )
        sums[name] = sums[name].add_(found) if name in sums else found
        added[name] += 1

    with recorder.record(model, wanted, layers, add):
        yield record
    record.maps = {name: total / added[name] for name, total in sums.items()}


def check_room(what: str, need: int, held: Iterable[torch.Tensor], max_bytes: int) -> None:
    """Refuse what would not fit beside what is held already.

    Raises:
        ValueError: more than ``max_bytes`` in all.
    """
    holds = sum(4 * m.numel() for m in held)
    if holds + need > max_bytes:
        raise ValueError(
            f"recording {what} needs {need / 2**20:.0f} MiB beside {holds / 2**20:.0f} MiB of "
            f"other layers, more than max_bytes = {max_bytes / 2**20:.0f} MiB; choose fewer or coarser layers, "
            'tokens, heads="mean" or a smaller image'
        )


def min_max(x: Float[Tensor, "*n h w"]) -> Float[Tensor, "*n h w"]:
    """Stretch the last two dimensions to [0, 1]; a flat map becomes zeros, not NaN (an eps of 1e-8)."""
    low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
    return (x - low) / (high - low + _EPS)


def resize(x: Float[Tensor, "*n _ _"], size: tuple[int, int]) -> Float[Tensor, "*n h w"]:
    """(..., h, w) to (..., H, W), bilinear."""
    flat = x.reshape(-1, 1, *x.shape[-2:])
    out = torch.nn.functional.interpolate(flat, size, mode="bilinear", align_corners=False)
    return out.reshape(*x.shape[:-2], *size)


def finest(maps: Iterable[torch.Tensor]) -> tuple[int, int]:
    """The largest (h, w) among maps (..., h, w, keys)."""
    grids = [(m.shape[-3], m.shape[-2]) for m in maps]
    return max(grids, key=lambda size: size[0] * size[1])


def word_map(
    attention: AttentionMaps,
    tokens: list[int],
    size: tuple[int, int],
    normalise: Literal["mean", "each"] = "mean",
    upsample: Literal["bilinear", "lanczos"] = "bilinear",
    padded: bool = False,
    row: int | None = None,
) -> Float[Tensor, "h w"]:
    """The map c of a word: mean over layers, resized to the image, stretched to [0, 1] (paper, section 3).

    Args:
        tokens: positions of the word's pieces; the last one is read, which has seen those before it.
        size: (H, W) of the image.
        normalise: min-max once after the mean over layers (paper) or also for every layer before it (official).
        upsample: enlarge each layer's map (paper), or round the mean map down to 256 levels and enlarge it by Lanczos
            (official).
        padded: the maps are of the black square around the image (official), which is cut away here.
        row: of the batch; must be said where there are several. Of a guided batch, one half belongs to the empty prompt.

    Returns:
        c, (H, W) float32 in [0, 1].
    """
    if attention.kind in ("self", "text"):
        raise ValueError(f"{attention.kind}-attention has no map of a word over pixels: record kind='cross'")
    layers = [m[..., attention.key(tokens[-1])] for m in attention.row(row)]
    if normalise == "each":
        layers = [min_max(m) for m in layers]
    frame = (max(size), max(size)) if padded else size
    grid = finest(attention.maps.values())
    c = torch.stack([resize(m, frame if upsample == "bilinear" else grid) for m in layers]).mean(0)
    if upsample == "lanczos":
        c = _lanczos(c if normalise == "each" else min_max(c), frame)
    if padded:
        top, left = square_corner(size)
        c = c[..., top : top + size[0], left : left + size[1]]
    return min_max(c)


def _lanczos(c: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A map (h, w) in [0, 1] through 256 grey levels to (H, W), as an image library enlarges it."""
    image = Image.fromarray((c.cpu().numpy() * 255).astype(np.uint8)).resize(size[::-1], Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).float() / 255


def finest_self_attention(attention: AttentionMaps, row: int | None = None) -> Float[Tensor, "hw hw"]:
    """Self-attention of the finest grid, mean over its layers, (h * w, h * w): row i is where pixel i looks."""
    grid = finest(attention.maps.values())
    layers = [m for m in attention.row(row) if m.shape[-3:-1] == grid]
    return rearrange(torch.stack(layers).mean(0), "h w keys -> (h w) keys")


def propagate(
    word: Float[Tensor, "_ _"], attention: AttentionMaps, steps: int = 1, row: int | None = None
) -> Float[Tensor, "h w"]:
    """Let a word's map flow along self-attention: pixels that look at each other come to agree.

    Args:
        word: (h, w) map at any size; it is resized to the grid of the recorded self-attention.
        attention: recorded with ``kind="self"``; the layers used are those of its finest grid.

    Returns:
        (h, w) map in [0, 1] at that grid.
    """
    grid = finest(attention.maps.values())
    matrix = finest_self_attention(attention, row)
    flat = resize(word, grid).flatten().to(matrix)
    for _ in range(steps):
        flat = matrix @ flat
    return min_max(flat.reshape(grid))
