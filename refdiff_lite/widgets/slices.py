"""From recorded attention to the maps that are shown: any layer, head, step and kind of value, exactly or in 256 levels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange

from ..attention import resize
from .base import quantise
from .recording import Attention, look

MEAN = -1
"""The head that is no head: the mean over all of them."""
READ = "mean of layers read"
"""The layer that is no layer: the mean over those that the method reads."""
OWN = "the method's own map"
"""The map c that the method makes of a word, stretched to [0, 1]; it knows no head, step or kind of value."""
VALUES = ("probabilities", "logits")
OWN_SIDE = 128
"""The method's own maps are drawn with at most so many cells a side; in Python they are whole."""
THUMB = 16
"""Side of the small maps of the overview."""


class Slice(NamedTuple):
    """One choice of where to look; ``layer`` is a module's name, :data:`READ`, :data:`OWN` or ``mean 16×16``."""

    layer: str
    head: int = MEAN
    step: int = 0
    values: str = VALUES[0]

    @property
    def key(self) -> str:
        return OWN if self.layer == OWN else "/".join(map(str, self))


def word_maps(attention: Attention, where: Slice) -> np.ndarray:
    """The maps of everything in ``attention.names`` in one slice, (names, h, w) float32.

    Probabilities over all tokens, where those of a group of tokens are summed, so that all names add up to 1 in every
    pixel; or logits, where a group has its mean. Layers of several grids are brought to the finest before the mean.

    Raises:
        ValueError: the layer, head or step was not recorded.
    """
    if where.layer == OWN and attention.own is not None:
        return attention.own
    names = choices(attention).get(where.layer)
    if names is None:
        raise ValueError(f"layer {where.layer!r} was not recorded; there are {', '.join(choices(attention))}")
    if not 0 <= where.step < len(attention.cross):
        raise ValueError(f"step={where.step}: {len(attention.cross)} steps were recorded, from 0")
    chosen = [torch.from_numpy(attention.cross[where.step][n]) for n in names]
    heads = min(len(m) for m in chosen)
    if not MEAN <= where.head < heads:
        raise ValueError(f"head={where.head}: {where.layer} has heads 0 to {heads - 1}; {MEAN} is their mean")
    if where.head != MEAN:
        chosen = [m[where.head : where.head + 1] for m in chosen]
    groups = [tokens for found in attention.groups.values() for tokens in found]
    maps = [_shown(m, groups, where.values) for m in chosen]
    grid = _grid(m.shape[1:] for m in maps)
    return torch.stack([m if m.shape[1:] == grid else resize(m, grid) for m in maps]).mean(0).numpy()


def _shown(logits: torch.Tensor, groups: list[list[int]], values: str) -> torch.Tensor:
    """(heads, h, w, tokens) logits to (groups, h, w), mean over the heads."""
    if values == "logits":
        m = logits.mean(0)
        return torch.stack([m[..., g].mean(-1) for g in groups])
    m = logits.softmax(-1).mean(0)
    return torch.stack([m[..., g].sum(-1) for g in groups])


def choices(attention: Attention) -> dict[str, list[str]]:
    """What ``layer`` may name beside OWN, with the layers that are meant: :data:`READ`, each grid's mean, each alone."""
    layers = attention.cross[0]
    grids: dict[str, list[str]] = {}
    for name, maps in layers.items():
        grids.setdefault(f"mean {maps.shape[1]}×{maps.shape[2]}", []).append(name)
    read = {READ: list(attention.reads)} if attention.reads else {}
    return read | grids | {name: [name] for name in layers}


def grids(attention: Attention) -> dict[str, tuple[int, int]]:
    """The grid (h, w) that each layer of :func:`choices`, and OWN, is drawn on."""
    layers = attention.cross[0]
    found = {n: _grid(layers[m].shape[1:3] for m in members) for n, members in choices(attention).items()}
    if attention.own is None:
        return found
    h, w = attention.own.shape[1:]
    scale = min(1.0, OWN_SIDE / max(h, w))
    return {OWN: (max(1, round(h * scale)), max(1, round(w * scale)))} | found


def _grid(sizes: Iterable[Iterable[int]]) -> tuple[int, int]:
    """The finest of some grids."""
    h, w = max(sizes, key=lambda size: np.prod(tuple(size)))
    return h, w


def has_looks(attention: Attention, layer: str) -> bool:
    """Was self-attention recorded in the same block as this layer?"""
    return bool(attention.looks) and layer in attention.looks[0]


def self_map(attention: Attention, where: Slice) -> np.ndarray:
    """Where each pixel looks in a slice, (h, w, h, w): the block's own self-attention, or else the mean that was kept."""
    if not has_looks(attention, where.layer):
        return attention.self_maps[where.step]
    return look(attention.looks[where.step][where.layer], None if where.head == MEAN else where.head)


def packed(attention: Attention, where: Slice) -> dict[str, np.ndarray]:
    """One slice as the view draws it: 256 levels between each map's own ends, and these ends."""
    maps = word_maps(attention, where)
    if where.layer == OWN:
        maps = resize(torch.from_numpy(maps), grids(attention)[OWN]).numpy()
    levels, ranges = quantise(maps)
    return {where.key: levels, f"range/{where.key}": ranges}


def packed_self(key: str, maps: np.ndarray) -> dict[str, np.ndarray]:
    """Self-attention as the view draws it."""
    levels, ranges = quantise(maps)
    return {key: levels, f"range/{key}": ranges}


def slices(attention: Attention, shown: Slice | None = None) -> Iterator[tuple[Slice, int]]:
    """Every slice with its size in bytes, the most wanted first.

    What is shown and the method's own map come first, means over the heads before single heads (those of the layer
    shown before others), the layers read before others, the first step before others, probabilities before logits,
    coarse grids before fine ones.
    """
    found, sizes = [], grids(attention)
    first = shown or Slice(READ)
    for name, members in {OWN: [], **choices(attention)}.items():
        if name not in sizes:
            continue
        cells = sizes[name][0] * sizes[name][1]
        heads = min((len(attention.cross[0][n]) for n in members), default=0)
        for where in (
            [Slice(OWN)]
            if name == OWN
            else [Slice(name, h, s, v) for s in range(len(attention.cross)) for h in range(MEAN, heads) for v in VALUES]
        ):
            order = (
                where not in (first, Slice(OWN)),
                where.head != MEAN,
                where.head != MEAN and name != first.layer,
                where.head != MEAN and where.step != first.step,
                name != READ,
                where.step != first.step,
                where.values != VALUES[0],
                cells,
            )
            found.append((order, where, cells * len(attention.names)))
    for _, where, size in sorted(found, key=lambda f: f[0]):
        yield where, size


def frames(attention: Attention, budget: int, shown: Slice | None = None) -> dict[str, np.ndarray]:
    """What the view draws from at once: as many slices as fit into ``budget`` bytes, after self-attention of each step.

    Self-attention gets half the budget at most. Where that is too little, four pixels that look share one map.
    """
    arrays: dict[str, np.ndarray] = {}
    room = budget // 2
    for step, maps in enumerate(attention.self_maps):
        share = room // (len(attention.self_maps) - step)
        while maps.size + 8 * maps.shape[0] * maps.shape[1] + 160 > share and min(maps.shape[:2]) > 4:
            h, w = maps.shape[0] // 2, maps.shape[1] // 2
            maps = rearrange(maps[: 2 * h, : 2 * w], "(h a) (w b) y x -> h w (a b) y x", a=2, b=2).mean(2)
        cost = maps.size + 8 * maps.shape[0] * maps.shape[1] + 160
        if cost <= share:
            room, budget = room - cost, budget - cost
            arrays |= packed_self(f"self/mean/{step}", maps)
    for where, size in slices(attention, shown):
        cost = size + 8 * len(attention.names) + 160  # two ranges, and the index
        if cost <= budget:
            budget -= cost
            arrays |= packed(attention, where)
    return arrays


def left_out(attention: Attention, arrays: Mapping[str, np.ndarray]) -> str:
    """What a page with these arrays does not hold, in a sentence; "" if it holds everything."""
    missing = [where for where, _ in slices(attention) if where.key not in arrays]
    total = sum(1 for _ in slices(attention))
    if not missing:
        return ""
    parts = []
    for name, some in (
        ("single heads", [w for w in missing if w.head != MEAN]),
        ("means over the heads", [w for w in missing if w.head == MEAN]),
    ):
        if some:
            layers = list(dict.fromkeys(w.layer for w in some))
            steps = sorted({attention.timesteps[w.step] for w in some})
            parts.append(f"{len(some)} {name} of {len(layers)} layers at t = {', '.join(map(str, steps))}")
    return f"This page keeps {total - len(missing)} of {total} views. Left out: {'; '.join(parts)}."


def overview(attention: Attention, name: int, step: int, inside: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Small maps of one name: every layer by every head, and every layer by every step (mean over the heads).

    Returns:
        "heads" (layers, heads + 1, THUMB, THUMB) uint8, each stretched to its own ends, the mean over the heads first;
        "steps" (layers, steps, THUMB, THUMB); and for both "heads/entropy" and "steps/entropy", float32: 1 where the
        map is even, 0 where one pixel has it all; "…/inside", the share of the map that lies in ``inside`` (H, W) bool.
    """
    tokens = [g for found in attention.groups.values() for g in found][name]
    most = max(len(m) for m in attention.cross[step].values())
    heads, steps = [], []
    for layer, recorded in attention.cross[step].items():
        each = torch.from_numpy(recorded).softmax(-1)[..., tokens].sum(-1)
        blank = torch.zeros(most - len(each), *each.shape[1:])
        heads.append(torch.cat([each.mean(0, keepdim=True), each, blank]))
        means = [
            each if s == step else torch.from_numpy(m[layer]).softmax(-1)[..., tokens].sum(-1)
            for s, m in enumerate(attention.cross)
        ]
        steps.append(torch.stack([m.mean(0) for m in means]))
    return {k: v for n, maps in (("heads", heads), ("steps", steps)) for k, v in _small(n, maps, inside).items()}


def _small(name: str, layers: list[torch.Tensor], inside: np.ndarray | None) -> dict[str, np.ndarray]:
    small = torch.stack([resize(m, (THUMB, THUMB)) for m in layers])
    found = {name: quantise(small.numpy())[0], f"{name}/entropy": torch.stack([_entropy(m) for m in layers]).numpy()}
    if inside is not None:
        mask = torch.from_numpy(inside).float()
        shares = [share_inside(m, mask) for m in layers]
        found[f"{name}/inside"] = torch.stack(shares).numpy()
    return found


def _entropy(maps: torch.Tensor) -> torch.Tensor:
    """(n, h, w) maps to the entropy of each as a share of the greatest possible, in [0, 1]; 0 for an empty map."""
    p = maps.flatten(1)
    p = p / p.sum(1, keepdim=True).clamp(min=1e-12)
    return (-(p * p.clamp(min=1e-12).log()).sum(1) / np.log(p.shape[1])).float()


def share_inside(maps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Share of each map (n, h, w) that lies within a mask (H, W) of 0 and 1."""
    fitted = torch.nn.functional.adaptive_avg_pool2d(mask[None, None], (maps.shape[1], maps.shape[2]))[0, 0]
    return (maps * fitted).sum((1, 2)) / maps.sum((1, 2)).clamp(min=1e-12)
