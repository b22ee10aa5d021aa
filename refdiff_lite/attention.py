"""Lessons 3 and 4: record attention beside the running UNet, and turn it into maps of words and of pixels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from einops import rearrange
from PIL import Image

from .images import square_corner
from .networks.compat import compiled, cross_attention_modules, self_attention_modules

Kind = Literal["cross", "self"]
_EPS = 1e-8
_AT_ONCE = 64 * 2**20
"""Bytes of attention probabilities that are held at once while heads are averaged; more heads go one after another."""


@dataclass
class AttentionMaps:
    """Attention of each recorded layer, mean over its heads (unless asked for each) and over the UNet calls.

    ``maps[name]`` is (batch, h, w, keys) float32, or (batch, heads, h, w, keys) with ``heads="each"``. For
    cross-attention the keys are the prompt's tokens, or those of them that ``tokens`` names; for self-attention the
    h * w pixels, row by row. h and w come from the latents, never from a square root.
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


class _Enough(Exception):
    """All that was wanted has been recorded; the rest of the UNet would be computed for nothing."""


@dataclass
class _Running:
    """What goes on in one UNet: the layers that each kind of recording still waits for in the present call."""

    waiting: dict[str, set[str]] = field(default_factory=dict)
    stop: bool = False


_RUNNING: WeakKeyDictionary[torch.nn.Module, _Running] = WeakKeyDictionary()


def _grid(queries: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a layer with this many queries over latents of this size."""
    for factor in (1, 2, 4, 8, 16):
        h, w = -(-height // factor), -(-width // factor)
        if h * w == queries:
            return h, w
    raise ValueError(f"{queries} attention queries do not fit latents of {height}×{width}")


def _scores(
    module: Any, hidden: torch.Tensor, context: torch.Tensor, scores: str, tokens: list[int] | None, each: bool
):
    """(batch, queries, keys), mean over heads, or (batch, heads, queries, keys) if ``each``; float32.

    Heads are taken a few at a time, so that all of them never lie side by side where that would be much.
    """
    q = rearrange(module.to_q(hidden), "b n (heads d) -> b heads n d", heads=module.heads)
    k = rearrange(module.to_k(context), "b n (heads d) -> b heads n d", heads=module.heads)
    bytes_per_head = 4 * q.shape[0] * q.shape[2] * k.shape[2]
    total, kept = None, []
    for q_part, k_part in zip(*(x.split(max(1, _AT_ONCE // bytes_per_head), 1) for x in (q, k)), strict=True):
        # In fp32, for q k^T of a fine-tune can leave the range of fp16, and SD 2.1's does.
        found = torch.einsum("bhqd,bhkd->bhqk", q_part.float(), k_part.float()) * module.scale
        if scores == "softmax":
            found = found.softmax(-1)
        if tokens is not None:
            found = found[..., tokens]
        if each:
            kept.append(found)
        else:
            total = found.sum(1) if total is None else total + found.sum(1)
    return torch.cat(kept, 1) if total is None else total / module.heads


@contextmanager
def record_attention(
    unet: torch.nn.Module,
    layers: str = "",
    kind: Kind = "cross",
    scores: Literal["softmax", "logits"] = "softmax",
    *,
    tokens: list[int] | None = None,
    heads: Literal["mean", "each"] = "mean",
    max_bytes: int = 2**30,
) -> Iterator[AttentionMaps]:
    """Record attention while the UNet runs, without changing what it computes.

    ``softmax(q k^T / sqrt(d))`` of the wanted layers is computed again beside the UNet's own fused attention, so the
    output stays bit-identical; heads are averaged at once and calls summed, so memory does not grow with steps.
    Attention slicing, other processors and CPU offload are no hindrance; a compiled UNet runs uncompiled meanwhile.

    Args:
        layers: regular expression that a layer's name must match (``up_blocks.0``); "" takes all.
        scores: "softmax" as in the paper, "logits" (before the softmax) as in the official code.
        tokens: keep these keys only; None keeps all. The softmax runs over all of them in any case.
        heads: "each" keeps the heads apart.
        max_bytes: refuse to hold more than this.

    Raises:
        ValueError: no layer matches, a recording of this kind is already running on this UNet, or, within the block,
            the maps would need more than ``max_bytes``.
    """
    found = (cross_attention_modules if kind == "cross" else self_attention_modules)(unet)
    wanted = {name: module for name, module in found.items() if re.search(layers, name)}
    if not wanted:
        raise ValueError(f"layers={layers!r} matches none of: {', '.join(found)}")
    running = _RUNNING.setdefault(unet, _Running())
    if kind in running.waiting:
        raise ValueError(f"{kind}-attention of this UNet is being recorded already; leave that block first")
    record = AttentionMaps(kind, scores, tokens=None if tokens is None else tuple(tokens))
    sums: dict[str, torch.Tensor] = {}
    size: list[int] = [0, 0]

    def before_unet(module: Any, args: tuple, kwargs: dict) -> None:
        size[:] = (args[0] if args else kwargs["sample"]).shape[-2:]
        running.waiting[kind] = set(wanted)
        record.calls += 1

    def check_room(name: str, module: Any, hidden: torch.Tensor, context: torch.Tensor) -> None:
        shape = (len(hidden), module.heads if heads == "each" else 1, hidden.shape[1])
        need = 4 * torch.Size(shape).numel() * (context.shape[1] if tokens is None else len(tokens))
        held = sum(4 * m.numel() for m in sums.values())
        if name not in sums and held + need > max_bytes:
            raise ValueError(
                f"recording {kind}-attention of {name} needs {need / 2**20:.0f} MiB beside {held / 2**20:.0f} MiB of "
                f"other layers, more than max_bytes = {max_bytes / 2**20:.0f} MiB; choose fewer or coarser layers, "
                'tokens, heads="mean" or a smaller image'
            )

    def before_layer(name: str) -> Any:
        def hook(module: Any, args: tuple, kwargs: dict) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            context = kwargs.get("encoder_hidden_states")
            context = hidden if context is None else context
            check_room(name, module, hidden, context)
            with torch.no_grad():
                maps = _scores(module, hidden, context, scores, tokens, heads == "each")
                h, w = _grid(hidden.shape[1], *size)
                maps = rearrange(maps, "... (h w) keys -> ... h w keys", h=h, w=w)
            sums[name] = sums[name] + maps if name in sums else maps
            running.waiting[kind].discard(name)
            if running.stop and not any(running.waiting.values()):
                raise _Enough

        return hook

    running.waiting[kind] = set()
    with ExitStack() as stack:
        stack.callback(running.waiting.pop, kind)
        if compiled(unet):  # compiled code would pass by the hooks
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        base = getattr(unet, "_orig_mod", unet)
        stack.callback(base.register_forward_pre_hook(before_unet, with_kwargs=True).remove)
        for name, module in wanted.items():
            stack.callback(module.register_forward_pre_hook(before_layer(name), with_kwargs=True).remove)
        yield record
    if record.calls and len(sums) < len(wanted):
        raise RuntimeError(
            f"the UNet ran, but {', '.join(n for n in wanted if n not in sums)} did not: it is compiled or exported in "
            "a way that leaves its modules out; give the plain UNet2DConditionModel"
        )
    record.maps = {name: total / record.calls for name, total in sums.items()}


@torch.no_grad()
def run_for_attention(unet: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
    """Run the UNet within :func:`record_attention` only as far as the recorded layers, where its output is not needed.

    The maps are those of a full pass; up-blocks behind the last recorded layer, the dearest ones, are left out.
    """
    running = _RUNNING.get(unet)
    if running is None or not running.waiting:
        raise ValueError("nothing is being recorded: call run_for_attention within record_attention")
    running.stop = True
    try:
        unet(*args, **kwargs)
    except _Enough:
        pass
    finally:
        running.stop = False


def min_max(x: torch.Tensor) -> torch.Tensor:
    """Stretch the last two dimensions to [0, 1]; a flat map becomes zeros, not NaN (an eps of 1e-8)."""
    low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
    return (x - low) / (high - low + _EPS)


def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
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
) -> torch.Tensor:
    """The map c of a word: mean over layers, resized to the image, stretched to [0, 1] (paper, section 3).

    Args:
        tokens: positions of the word's pieces; the last one is read, which has seen those before it.
        size: (H, W) of the image.
        normalise: min-max once after the mean over layers (paper) or also for every layer before it (official).
        upsample: enlarge each layer's map (paper), or round the mean map down to 256 levels and enlarge it by Lanczos
            (official).
        padded: the maps are of the black square around the image (official), which is cut away here.

    Returns:
        c, (H, W) float32 in [0, 1].
    """
    layers = [m[0, ..., attention.key(tokens[-1])] for m in attention.maps.values()]
    if not layers:
        raise ValueError("nothing was recorded: run the UNet inside record_attention and read the maps after it")
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


def finest_self_attention(attention: AttentionMaps) -> torch.Tensor:
    """Self-attention of the finest grid, mean over its layers, (h * w, h * w): row i is where pixel i looks."""
    grid = finest(attention.maps.values())
    layers = [m[0] for m in attention.maps.values() if m.shape[1:3] == grid]
    return rearrange(torch.stack(layers).mean(0), "h w keys -> (h w) keys")


def propagate(word: torch.Tensor, attention: AttentionMaps, steps: int = 1) -> torch.Tensor:
    """Let a word's map flow along self-attention: pixels that look at each other come to agree.

    Args:
        word: (h, w) map at any size; it is resized to the grid of the recorded self-attention.
        attention: recorded with ``kind="self"``; the layers used are those of its finest grid.

    Returns:
        (h, w) map in [0, 1] at that grid.
    """
    grid = finest(attention.maps.values())
    matrix = finest_self_attention(attention)
    flat = resize(word, grid).flatten().to(matrix)
    for _ in range(steps):
        flat = matrix @ flat
    return min_max(flat.reshape(grid))
