"""The results of an evaluation run, to be sorted, filtered and looked at one by one (lesson 8)."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure

from ..datasets import Sample
from ..datasets.photos import load_photos
from ..datasets.toyref import load_toyref
from ..evaluation.journal import weights_digest
from ..masks import resize_nearest
from ..pipeline import RefDiff
from ..viz import show_mask
from .base import DATA_BYTES, Explorer, bits, picture, quantise, view_module
from .outcomes import CAUSES, Facts, Item, RunItems, cause, facts_of, read_run

__all__ = ["CAUSES", "Gallery", "Item", "cause"]
SIDE, MAP_SIDE, FULL_SIDE, RIVAL_SIDE = 128, 32, 1024, 64
PACKED = 300
"""So many results come with the page at once; a living one asks its kernel for the others when they are seen."""


def _fit(array: np.ndarray, side: int) -> np.ndarray:
    """(H, W) to at most ``side`` a side, by the nearest pixel."""
    return resize_nearest(array, _fitted((array.shape[0], array.shape[1]), side))


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def ends(ious: Sequence[float]) -> list[int]:
    """Places of the worst and the best in turn, so that wherever a list of them is cut, both ends are the true ones."""
    order = sorted(range(len(ious)), key=lambda i: ious[i])
    return [order[i // 2] if i % 2 == 0 else order[-1 - i // 2] for i in range(len(order))]


def arrays_of(item: Item, side: int = SIDE) -> dict[str, np.ndarray]:
    """What the view draws one result from, but for its image: masks (mask, truth, other run's) and what is told."""
    masks = [item.mask, item.truth] if item.other is None else [item.mask, item.truth, item.other]
    found = {"masks": bits(np.stack([_fit(mask, side) for mask in masks]))}
    if item.word_map is not None:
        found["map"] = quantise(_fit(item.word_map, MAP_SIDE)[None])[0][0]
    if item.scores:
        found["scores"] = np.array(item.scores[:5], np.float32)
    if item.rivals is not None and len(item.rivals):
        found["rivals"] = np.stack([_fit(mask, RIVAL_SIDE) for mask in item.rivals]).astype(np.uint8)
    return found


def frames(items: Sequence[Item], facts: Sequence[Facts], budget: int) -> dict[str, np.ndarray]:
    """Arrays of those results, at most PACKED from both ends, that fit into ``budget`` bytes; an image comes once."""
    arrays: dict[str, np.ndarray] = {}
    images: dict[int, np.ndarray] = {}
    made: dict[int, dict[str, np.ndarray]] = {}
    size, chosen = 0, ends([f.iou for f in facts])[:PACKED]
    for i in sorted(chosen):  # sentences of one image follow each other: it is decoded once
        item = items[i]
        made[i] = {f"{i}/{name}": a for name, a in arrays_of(item).items()}
        if item.image_id not in images:
            images[item.image_id] = picture(item.image, SIDE, quality=88)
    for i in chosen:
        new, name = made[i], f"image/{facts[i].image_id}"
        if name not in arrays:
            new[name] = images[facts[i].image_id]
        size += sum(a.nbytes for a in new.values()) + 800
        if size > budget:
            break
        arrays |= new
    return arrays


def _entry(facts: Facts) -> dict[str, Any]:
    told: dict[str, Any] = {
        "image": facts.image_id,
        "size": _fitted(facts.size, SIDE),
        "full": _fitted(facts.size, FULL_SIDE),
    }
    told |= {"text": facts.text, "head": facts.head, "style": facts.style, "iou": round(facts.iou, 3)}
    if facts.other_iou is not None:
        told |= {"other": round(facts.other_iou, 3), "change": facts.change}
    return told | {"cause": facts.cause}


class Gallery(Explorer):
    """Look through results: sort by IoU, keep one style or one cause of failure, open any of them.

    Attributes:
        order: "worst", "best" or "run" (as evaluated). style, cause: what to keep, "" is all.
        change: of two compared runs, keep what this one "gained" or "lost" at IoU 0.5, "" is all.
        truth: draw the outline of what was meant on the wall too.
        opened: index of the item whose panel is open, or -1.
    """

    _esm = view_module("ask", "keep", "wall", "gallery")
    order = traitlets.Enum(("worst", "best", "run"), "worst").tag(sync=True)
    style = traitlets.Unicode().tag(sync=True)
    cause = traitlets.Unicode().tag(sync=True)
    change = traitlets.Enum(("", "gained", "lost"), "").tag(sync=True)
    truth = traitlets.Bool(True).tag(sync=True)
    opened = traitlets.Int(-1).tag(sync=True)

    def __init__(self, items: Sequence[Item], title: str = "Results, one by one", **choices: Any) -> None:
        """Show results; :meth:`from_run` is the short way.

        Args:
            items: any number; what is not packed is decoded when it is looked at.
            choices: traits to start with, such as ``order="best"``.

        Raises:
            ValueError: no results.
        """
        if not len(items):
            raise ValueError("there is nothing to show: give at least one result")
        self.items = items if isinstance(items, RunItems) else tuple(items)
        self.facts = items.facts if isinstance(items, RunItems) else [facts_of(item) for item in items]
        super().__init__()
        styles = list(dict.fromkeys(f.style for f in self.facts))
        told = {"title": title, "entries": [_entry(f) for f in self.facts], "styles": styles, "causes": list(CAUSES)}
        told["compared"] = any(f.other_iou is not None for f in self.facts)
        self.show(told, frames(self.items, self.facts, DATA_BYTES))
        self.choose(**choices)

    @traitlets.observe("style", "cause", "change")
    def _close_what_is_filtered_out(self, _: Any) -> None:
        if self.opened >= 0 and self.opened not in self.shown():
            self.opened = -1

    def answer(self, name: str) -> dict[str, np.ndarray]:
        """One result's arrays, asked as "3/masks", or at full size as "3/full"."""
        number, _, what = name.partition("/")
        if what not in ("masks", "full") or not number.isdecimal() or int(number) >= len(self.items):
            return super().answer(name)
        try:
            item = self.items[int(number)]
        except OSError as error:
            raise ValueError(f"the picture is gone: {error}") from error
        if what == "full":
            masks = arrays_of(item, FULL_SIDE)["masks"]
            return {name: picture(item.image, FULL_SIDE), f"{number}/fullmasks": masks}
        found = {f"{number}/{part}": a for part, a in arrays_of(item).items()}
        return found | {f"{number}/image": picture(item.image, SIDE, quality=88)}

    def kept(self) -> tuple[dict[str, Any], bytes]:
        """A page has no kernel to ask: it holds what was packed, the worst and the best.

        Raises:
            ValueError: not even one result fits.
        """
        entries = self._meta["entries"]
        packed = {str(i): entry for i, entry in enumerate(entries) if f"{i}/masks" in self._meta["index"]}
        if not packed:
            raise ValueError("the first result alone is larger than a page may be; give smaller pictures")
        title = self._meta["title"]
        if len(packed) < len(entries):
            title += f": of {len(entries)} the worst {-(-len(packed) // 2)} and the best {len(packed) // 2} fit"
        return {**self._meta, "entries": packed, "title": title}, self._block

    @classmethod
    def from_run(
        cls,
        folder: str | Path,
        samples: Iterable[Sample] | None = None,
        variant: str | None = None,
        *,
        model: RefDiff | None = None,
        compare: str | Path | None = None,
        limit: int | None = None,
        **choices: Any,
    ) -> Gallery:
        """Show a run of ``refdiff-lite evaluate``.

        Args:
            folder: its ``--out``. samples: the data that were evaluated; ToyRef and the photographs are found by
                themselves.
            variant: one of those that ran (default: the one that leads the summary).
            model: the model that was evaluated, to see word maps, scores and rival proposals too, which a run does not
                keep. It segments what is looked at once more.
            compare: another run over the same sentences: which ones did this one gain or lose?
            limit: of a longer run, this many: the worst and the best, half of each.

        Raises:
            FileNotFoundError: the folder holds no run that has ended.
            ValueError: it is damaged; no such variant; samples or model are not those evaluated; the other run lacks
                one of the sentences.
        """
        run, summary, rows = read_run(Path(folder))
        variant = variant or summary["variant"]
        rows = _rows_of(folder, run, rows, variant)
        proposals = run["proposals"]
        if model is not None and (run["weights"], run["config"]) != (
            weights_digest(model.networks, proposals == "sam"),
            json.loads(json.dumps(model.config.to_dict())),
        ):
            raise ValueError(f"{folder} was evaluated with other networks or constants than this model's")
        if samples is None:
            if summary["data"] not in ("toyref", "photos"):
                raise ValueError(f"{folder} is a run on {summary['data']}: give the samples that were evaluated")
            samples = load_photos() if summary["data"] == "photos" else load_toyref(summary["split"])
        title, others = f"Results of {variant}, {summary['data']} {summary['split']}", None
        if compare is not None:
            run, summary, others = read_run(Path(compare))
            other = variant if variant in run["variants"] else summary["variant"]
            others = _rows_of(compare, run, others, other)
            title += f", beside {other} in {Path(compare).name}"
        chosen = sorted(ends([row["iou"] for row in rows])[:limit])
        if len(chosen) < len(rows):
            title += f": the worst {-(-len(chosen) // 2)} and the best {len(chosen) // 2} of {len(rows)}"
        return cls(RunItems([rows[i] for i in chosen], samples, model, proposals, others), title, **choices)

    def shown(self) -> list[int]:
        """Indices of the items that pass the filters, in order."""
        wanted = {k: getattr(self, k) for k in ("style", "cause", "change") if getattr(self, k)}
        kept = [i for i, f in enumerate(self.facts) if all(getattr(f, k) == v for k, v in wanted.items())]
        if self.order == "run":
            return kept
        return sorted(kept, key=lambda i: self.facts[i].iou, reverse=self.order == "best")

    def figure(self) -> Figure:
        shown = self.shown()[:10]
        figure = Figure(figsize=(10, 2.4 * max(1, -(-len(shown) // 5))), dpi=80, layout="constrained")
        for place, i in enumerate(shown):
            item = self.items[i]
            ax = figure.add_subplot(-(-len(shown) // 5), 5, place + 1)
            # A "$" would begin a formula.
            text = textwrap.shorten(item.text, 30, placeholder=" …").replace("$", r"\$")
            title = f"{text}\nIoU {item.iou:.2f}, {item.cause}"
            show_mask(item.mask, item.image, ax, title, item.truth if self.truth else None)
        return figure

    def __repr__(self) -> str:
        counts = Counter(f.cause for f in self.facts)
        return f"Gallery({len(self.items)} results: {', '.join(f'{counts[c]} {c}' for c in CAUSES if counts[c])})"


def _rows_of(folder: str | Path, run: dict[str, Any], rows: list[dict[str, Any]], variant: str) -> list[dict[str, Any]]:
    if variant not in run["variants"]:
        raise ValueError(f"{folder} has no variant {variant!r}: choose among {', '.join(run['variants'])}")
    return [row for row in rows if row["variant"] == variant]
