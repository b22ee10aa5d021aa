"""The results of an evaluation run, to be sorted, filtered and looked at one by one (lesson 8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure

from ..config import ProposalKind, Variant
from ..datasets import Sample
from ..metrics import iou
from ..pipeline import RefDiff
from ..viz import show_mask
from .base import DATA_BYTES, Explorer, bits, picture, quantise, view_module

SIDE, MAP_SIDE = 128, 32
CAUSES = ("right", "loose outline", "twin", "other kind", "nothing found")
"""Right object well outlined; right object, IoU below 0.5; another of its kind; another kind; no mask."""


@dataclass(frozen=True)
class Item:
    """One sentence's outcome.

    Attributes:
        image: (H, W, 3) uint8. mask, truth: (H, W) bool. word_map: (h, w) in [0, 1].
        scores: the proposals' S, best first.
        cause: one of CAUSES.
    """

    image_id: int
    image: np.ndarray
    mask: np.ndarray
    truth: np.ndarray
    word_map: np.ndarray
    text: str
    head: str
    style: str
    iou: float
    cause: str
    scores: tuple[float, ...]


def cause(mask: np.ndarray, sample: Sample, target: int) -> str:
    """Why a mask is right or wrong: which object does it fit best, and how well?"""
    fits = [iou(mask, m) for m in sample.masks]
    best = int(np.argmax(fits))
    if fits[best] == 0:
        return "nothing found"
    if best == target:
        return "right" if fits[best] >= 0.5 else "loose outline"
    return "twin" if sample.categories[best] == sample.categories[target] else "other kind"


def collect(
    model: RefDiff, samples: Iterable[Sample], variant: Variant = "full", proposals: ProposalKind | None = None
) -> list[Item]:
    """Segment every sentence of the samples and keep what explains the outcome."""
    items = []
    for sample in samples:
        masks = sample.masks  # decoded at each access
        scene = model.set_image(sample.image(), oracle=masks)
        for record in sample.records:
            result = scene.segment(record.text, variant, proposals)
            items.append(
                Item(
                    sample.image_id,
                    scene.image,
                    result.mask,
                    masks[record.target],
                    result.word_map,
                    record.text,
                    result.expression.head,
                    record.style,
                    iou(result.mask, masks[record.target]),
                    cause(result.mask, sample, record.target),
                    tuple(sorted(result.scores["S"].tolist(), reverse=True)),
                )
            )
    return items


def _fit(array: np.ndarray, side: int) -> np.ndarray:
    """(H, W) to at most ``side`` a side, by the nearest pixel."""
    size = [max(1, round(n * min(1, side / max(array.shape)))) for n in array.shape]
    rows, cols = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, array.shape, strict=True))
    return array[rows][:, cols]


def frames(items: Sequence[Item], budget: int) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """What the view draws from: a description of every item and its pictures; an image comes once.

    Raises:
        ValueError: the items need more than ``budget`` bytes.
    """
    arrays: dict[str, np.ndarray] = {}
    entries = []
    for i, item in enumerate(items):
        if f"image/{item.image_id}" not in arrays:
            arrays[f"image/{item.image_id}"] = picture(item.image, SIDE, quality=88)
        mask, truth = _fit(item.mask, SIDE), _fit(item.truth, SIDE)
        arrays[f"{i}/masks"] = bits(np.stack([mask, truth]))
        arrays[f"{i}/map"] = quantise(_fit(item.word_map, MAP_SIDE)[None])[0][0]
        entries.append(
            {
                "image": item.image_id,
                "size": list(mask.shape),
                "text": item.text,
                "head": item.head,
                "style": item.style,
            }
            | {"iou": round(item.iou, 3), "cause": item.cause, "scores": [round(s, 4) for s in item.scores[:5]]}
        )
    size = sum(a.nbytes for a in arrays.values()) + 500 * len(items)
    if size > budget:
        raise ValueError(f"{len(items)} results need {size / 1e6:.1f} MB, more than {budget / 1e6:.1f}; show fewer")
    return entries, arrays


class Gallery(Explorer):
    """Look through results: sort by IoU, keep one style or one cause of failure, open any of them.

    Attributes:
        order: "worst", "best" or "run" (as evaluated). style, cause: what to keep, "" is all.
        opened: index of the item whose panel is open, or -1.
    """

    _esm = view_module("gallery")
    order = traitlets.Enum(("worst", "best", "run"), "worst").tag(sync=True)
    style = traitlets.Unicode().tag(sync=True)
    cause = traitlets.Unicode().tag(sync=True)
    opened = traitlets.Int(-1).tag(sync=True)

    def __init__(self, items: Sequence[Item], **choices: Any) -> None:
        """Show items of :func:`collect`; :meth:`from_run` is the short way."""
        if not items:
            raise ValueError("there is nothing to show: give at least one result")
        self.items = tuple(items)
        super().__init__()
        entries, arrays = frames(self.items, DATA_BYTES)
        styles = list(dict.fromkeys(i.style for i in self.items))
        self.show(
            {"title": "Results, one by one", "entries": entries, "styles": styles, "causes": list(CAUSES)}, arrays
        )
        self.choose(**choices)

    @classmethod
    def from_run(
        cls,
        model: RefDiff,
        samples: Iterable[Sample],
        variant: Variant = "full",
        proposals: ProposalKind | None = None,
        **choices: Any,
    ) -> Gallery:
        """Segment every sentence of the samples and show the outcome."""
        return cls(collect(model, samples, variant, proposals), **choices)

    def shown(self) -> list[int]:
        """Indices of the items that pass the filters, in order."""
        kept = [
            i for i, item in enumerate(self.items) if self.style in ("", item.style) and self.cause in ("", item.cause)
        ]
        if self.order == "run":
            return kept
        return sorted(kept, key=lambda i: self.items[i].iou, reverse=self.order == "best")

    def figure(self) -> Figure:
        shown = self.shown()[:10]
        figure = Figure(figsize=(10, 2.4 * max(1, -(-len(shown) // 5))), dpi=80, layout="constrained")
        for place, i in enumerate(shown):
            item = self.items[i]
            ax = figure.add_subplot(-(-len(shown) // 5), 5, place + 1)
            show_mask(item.mask, item.image, ax, f"{item.text[:30]}\nIoU {item.iou:.2f}, {item.cause}")
        return figure

    def __repr__(self) -> str:
        counts = Counter(i.cause for i in self.items)
        return f"Gallery({len(self.items)} results: {', '.join(f'{counts[c]} {c}' for c in CAUSES if counts[c])})"
