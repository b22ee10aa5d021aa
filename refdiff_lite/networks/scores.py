"""From the queries and keys of one attention call to the scores that are wanted of it: ``softmax(q k^T / sqrt(d))``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange

from .families import Kind, Layout, Place

AT_ONCE = 64 * 2**20
"""Bytes of scores that are held at once while heads are averaged; further heads and queries go one after another."""
_ASKS: dict[str, tuple[str, str]] = {
    "cross": ("image", "text"),
    "reverse": ("text", "image"),
    "self": ("image", "image"),
    "text": ("text", "text"),
    "output": ("image", "text"),
}


class Seen(NamedTuple):
    """What went into ``scaled_dot_product_attention``: query and key (B, heads, N, d), mask, scale; and what came out."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    scale: float
    output: torch.Tensor | None = None

    @classmethod
    def of(
        cls, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
        scale: float | None = None, enable_gqa: bool = False,
    ) -> Seen:  # fmt: skip
        """The same arguments; grouped keys are repeated for each head, a causal mask is written out."""
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        if is_causal:
            attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        if attn_mask is not None:
            attn_mask = attn_mask.detach()[(None,) * (4 - attn_mask.ndim)]
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        return cls(query.detach(), key.detach(), value.detach(), attn_mask, scale)

    def rows(self, rows: slice) -> Seen:
        """The same for some rows of the batch."""
        mask, output = self.mask, self.output
        return Seen(
            self.query[rows],
            self.key[rows],
            self.value[rows],
            mask[rows] if mask is not None and len(mask) > 1 else mask,
            self.scale,
            None if output is None else output[rows],
        )


@dataclass(frozen=True)
class Wanted:
    """What to keep of an attention call.

    Attributes:
        scores: "softmax", or "logits" before it; masked keys have 0, or minus infinity.
        over: keys that share in the softmax: "all" that the model has, or only "own", those of this kind (the text's for
            words), head by head before the mean.
        tokens: positions within the text to keep; None keeps all.
        heads: "mean" over all, "each" apart, or the numbers of those to keep apart.
    """

    kind: Kind = "cross"
    scores: Literal["softmax", "logits"] = "softmax"
    over: Literal["all", "own"] = "all"
    tokens: tuple[int, ...] | None = None
    heads: Literal["mean", "each"] | Sequence[int] = "mean"

    def __post_init__(self) -> None:
        for name, choices in (("kind", tuple(_ASKS)), ("scores", ("softmax", "logits")), ("over", ("all", "own"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(choices)}")
        if self.tokens is not None and self.kind == "self":
            raise ValueError("tokens=... chooses words, and self-attention has none")
        if isinstance(self.heads, str) and self.heads not in ("mean", "each"):
            raise ValueError(f'heads={self.heads!r}: choose "mean", "each" or numbers of heads')


class _Group(NamedTuple):
    """Neighbouring rows of the batch in which everything stands at the same places."""

    rows: slice
    queries: Place
    keys: Place


def _groups(layout: Layout) -> Iterator[_Group]:
    places = list(zip(layout.queries, layout.keys, strict=True))
    start = 0
    for i in range(1, len(places) + 1):
        if i == len(places) or places[i] != places[start]:
            yield _Group(slice(start, i), *places[start])
            start = i


def _wanted_heads(seen: Seen, wanted: Wanted) -> Sequence[int]:
    count = seen.query.shape[1]
    if isinstance(wanted.heads, str):
        return range(count)
    if not wanted.heads or not all(0 <= h < count for h in wanted.heads):
        raise ValueError(f"heads={list(wanted.heads)}: the layer has heads 0 to {count - 1}")
    return wanted.heads


def _indices(place: Place, part: str, tokens: tuple[int, ...] | None) -> Sequence[int]:
    """Positions in the sequence of the image, or of the wanted words of the text."""
    where = getattr(place, part)
    if where is None:
        raise ValueError(f"this attention has no {part} to record")
    every = range(where.start, where.stop)
    if part == "image" or tokens is None:
        return every
    outside = [t for t in tokens if not 0 <= t < len(every)]
    if outside:
        raise ValueError(f"tokens={outside}: the text has {len(every)} tokens, from 0")
    return [every[t] for t in tokens]


def size_of(seen: Seen, layout: Layout, wanted: Wanted) -> int:
    """Bytes of what :func:`scores` would return."""
    ask, answer = _ASKS[wanted.kind]
    pairs = [
        len(_indices(g.queries, ask, wanted.tokens)) * len(_indices(g.keys, answer, wanted.tokens))
        for g in _groups(layout)
    ]
    return 4 * len(seen.query) * (1 if wanted.heads == "mean" else len(_wanted_heads(seen, wanted))) * max(pairs)


def scores(seen: Seen, layout: Layout, wanted: Wanted) -> torch.Tensor:
    """The wanted scores of one call, float32.

    Returns:
        (B, h, w, tokens) for "cross", "reverse" and "output", (B, h, w, h * w) for "self", (B, tokens, tokens) for "text",
        with heads kept apart (B, heads, ...). Rows with fewer words than others are filled up with zeros (minus infinity).
    """
    found = [_scores(seen, group, wanted) for group in _groups(layout)]
    widest = max(f.shape[-1] for f in found)
    fill = 0.0 if wanted.scores == "softmax" and wanted.kind != "output" else -torch.inf
    padded = []
    for f in found:
        missing = widest - f.shape[-1]
        if wanted.kind == "reverse":
            f = f.transpose(-1, -2)
            missing = max(g.shape[-2] for g in found) - f.shape[-1]
        sides = (0, missing, 0, missing) if wanted.kind == "text" else (0, missing)
        padded.append(torch.nn.functional.pad(f, sides, value=fill) if missing else f)
    out = torch.cat(padded)
    return out if wanted.kind == "text" else rearrange(out, "... (h w) keys -> ... h w keys", h=layout.grid[0])


def _scores(seen: Seen, group: _Group, wanted: Wanted) -> torch.Tensor:
    """(b, queries, keys), mean over heads, or (b, heads, queries, keys), of one group of rows."""
    ask, answer = _ASKS[wanted.kind]
    asking = _indices(group.queries, ask, wanted.tokens)
    own = _indices(group.keys, answer, None)
    kept = _indices(group.keys, answer, wanted.tokens)
    plain = wanted.scores == "logits" or wanted.kind == "output"
    every = range(seen.key.shape[2])
    keys = kept if plain else own if wanted.over == "own" else every
    columns = slice(None) if plain or kept == keys else _as_slice([keys.index(k) for k in kept])
    query, key, scale = seen.query, seen.key, seen.scale
    if wanted.kind == "output":
        if seen.output is None:
            raise ValueError('kind "output" needs what the attention gave')
        query, key, scale = seen.output.detach(), seen.output.detach(), 1.0
    heads = _wanted_heads(seen, wanted)
    at_once = max(1, AT_ONCE // (4 * (group.rows.stop - group.rows.start) * len(keys)))
    step, block = max(1, at_once // len(asking)), min(at_once, len(asking))
    total, apart = None, []
    for start in range(0, len(heads), step):
        some = heads[start : start + step]
        k = _cut(key, group.rows, some, keys).float()
        blocks = []
        for first in range(0, len(asking), block):
            rows = asking[first : first + block]
            # In fp32, for q k^T of a fine-tune can leave the range of fp16, and SD 2.1's does.
            found = torch.einsum("bhqd,bhkd->bhqk", _cut(query, group.rows, some, rows).float(), k) * scale
            if seen.mask is not None and wanted.kind != "output":
                found = _masked(found, seen.mask, group.rows, some, rows, keys)
            if not plain:
                found = found.softmax(-1)
            blocks.append(found[..., columns])
        found = torch.cat(blocks, 2) if len(blocks) > 1 else blocks[0]
        if wanted.heads == "mean":
            total = found.sum(1) if total is None else total + found.sum(1)
        else:
            apart.append(found)
    return torch.cat(apart, 1) if total is None else total / len(heads)


def _as_slice(indices: Sequence[int]) -> Any:
    """A slice, which copies nothing, where the indices follow each other; else a list."""
    run = range(indices[0], indices[-1] + 1)
    return slice(run.start, run.stop) if indices == run or list(indices) == list(run) else list(indices)


def _cut(x: torch.Tensor, rows: slice, heads: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    return x[rows][:, _as_slice(heads)][:, :, _as_slice(tokens)]


def _masked(
    logits: torch.Tensor,
    mask: torch.Tensor,
    rows: slice,
    heads: Sequence[int],
    asking: Sequence[int],
    keys: Sequence[int],
) -> torch.Tensor:
    """Logits with the model's own mask: added, or minus infinity where it is False."""
    for dim, index in enumerate((rows, _as_slice(heads), _as_slice(asking), _as_slice(keys))):
        if mask.shape[dim] > 1:
            mask = mask[(slice(None),) * dim + (index,)]
    return logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask.float()
