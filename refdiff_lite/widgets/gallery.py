"""The results of an evaluation run, to be sorted, filtered and looked at one by one (lesson 8)."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure

from ..config import VARIANTS
from ..datasets import Sample
from ..datasets.photos import load_photos
from ..datasets.toyref import load_toyref
from ..evaluation.journal import weights_digest
from ..evaluation.metrics import iou
from ..masks import from_rle, resize_nearest
from ..pipeline import RefDiff
from ..viz import show_mask
from .base import DATA_BYTES, Explorer, bits, picture, quantise, view_module

SIDE, MAP_SIDE = 128, 32
LIMIT = 300
"""Results of a run that are shown, so that pictures and masks stay small enough to hand out."""
CAUSES = ("right", "loose outline", "twin", "other kind", "nothing found", "error")
"""Right object well outlined; right object, IoU below 0.5; another of its kind; another kind; no mask; not evaluated."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One sentence's outcome.

    Attributes:
        image: (H, W, 3) uint8. mask, truth: (H, W) bool.
        cause: one of CAUSES.
        word_map: (h, w) in [0, 1], where it is known. scores: the proposals' S, best first, where they are known.
    """

    image_id: int
    image: np.ndarray
    mask: np.ndarray
    truth: np.ndarray
    text: str
    head: str
    style: str
    iou: float
    cause: str
    word_map: np.ndarray | None = None
    scores: tuple[float, ...] = ()


def cause(mask: np.ndarray, sample: Sample, target: int) -> str:
    """Why a mask is right or wrong: which object does it fit best, and how well?"""
    fits = [iou(mask, m) for m in sample.masks]
    best = int(np.argmax(fits))
    if fits[best] == 0:
        return "nothing found"
    if best == target:
        return "right" if fits[best] >= 0.5 else "loose outline"
    return "twin" if sample.categories[best] == sample.categories[target] else "other kind"


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[Row]]:
    """What ``refdiff-lite evaluate`` left in its ``--out``: what the run is made of, its summary, its rows.

    Raises:
        FileNotFoundError: no run, or one that has not ended. ValueError: its files are damaged.
    """
    wanted = [folder / name for name in ("run.json", "summary.json", "results.jsonl")]
    if missing := [path.name for path in wanted if not path.is_file()]:
        begun = (folder / "parts").is_dir()
        hint = "the run has not ended: start it again, and it goes on" if begun else (
            "give the folder that `refdiff-lite evaluate` was given as --out"
        )  # fmt: skip
        raise FileNotFoundError(f"{folder} holds no {missing[0]}; {hint}")
    try:
        run, summary, text = (path.read_text(encoding="utf-8") for path in wanted)
        rows = [json.loads(line) for line in text.split("\n") if line]
        if not all({"variant", "iou", "rle"} <= row.keys() for row in rows):
            raise ValueError("a row of results.jsonl lacks what evaluate writes")
        return json.loads(run), json.loads(summary), rows
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder} is damaged ({error}); evaluate into it again, and its files are written anew"
        ) from error


def items_of(
    rows: Sequence[Row], samples: Iterable[Sample], model: RefDiff | None = None, proposals: str = ""
) -> Iterator[Item]:
    """Rows of a run with their pictures and truth, and with a model also word maps and scores.

    Raises:
        ValueError: the samples are not those that were evaluated.
    """
    by_id = {s.image_id: s for s in samples}
    for number, group in groupby(rows, key=lambda row: row["image_id"]):
        sample, scene = by_id.get(number), None
        targets = {r.sent_id: r.target for r in sample.records} if sample else {}
        if sample and sample.found:
            masks, image = sample.masks, sample.image()  # decoded at each access
            scene = model.set_image(image, oracle=masks) if model else None
        elif sample:
            masks, image = sample.masks, np.full((*sample.size, 3), 128, np.uint8)
        for row in group:
            if sample is None or row["sent_id"] not in targets:
                raise ValueError(
                    f"sentence {row['sent_id']} of image {number} is not in these samples: give those evaluated"
                )
            target = targets[row["sent_id"]]
            mask = from_rle({"size": sample.size, "counts": row["rle"]})
            told: dict[str, Any] = {}
            if scene is not None and row["variant"] in VARIANTS and "error" not in row:
                result = scene.segment(row["text"], row["variant"], "weak" if row["variant"] == "g" else proposals)  # type: ignore[arg-type]
                told = {"word_map": result.word_map, "scores": tuple(sorted(result.scores["S"].tolist(), reverse=True))}
            why = "error" if "error" in row else cause(mask, sample, target)
            yield Item(
                number, image, mask, masks[target], row["text"], row["head"], row["style"], row["iou"], why, **told
            )  # fmt: skip


def _fit(array: np.ndarray, side: int) -> np.ndarray:
    """(H, W) to at most ``side`` a side, by the nearest pixel."""
    height, width = (max(1, round(n * min(1, side / max(array.shape)))) for n in array.shape)
    return resize_nearest(array, (height, width))


def ends(ious: Sequence[float]) -> list[int]:
    """Places of the worst and the best in turn, so that wherever a list of them is cut, both ends are the true ones."""
    order = sorted(range(len(ious)), key=lambda i: ious[i])
    return [order[i // 2] if i % 2 == 0 else order[-1 - i // 2] for i in range(len(order))]


def frames(items: Sequence[Item], budget: int) -> tuple[list[int], list[dict[str, Any]], dict[str, np.ndarray]]:
    """Which items fit into ``budget`` bytes, from both ends, and what the view draws them from; an image comes once."""
    images: dict[int, np.ndarray] = {}
    pictures: dict[int, dict[str, np.ndarray]] = {}
    size = 0
    for i in ends([item.iou for item in items]):
        item = items[i]
        own = {"masks": bits(np.stack([_fit(item.mask, SIDE), _fit(item.truth, SIDE)]))}
        if item.word_map is not None:
            own["map"] = quantise(_fit(item.word_map, MAP_SIDE)[None])[0][0]
        image = images.get(item.image_id)
        new = {} if image is not None else {item.image_id: picture(item.image, SIDE, quality=88)}
        size += sum(a.nbytes for a in (*own.values(), *new.values())) + 500
        if size > budget:
            break
        images |= new
        pictures[i] = own
    kept = sorted(pictures)
    arrays = {f"image/{number}": image for number, image in images.items()}
    arrays |= {f"{place}/{name}": a for place, i in enumerate(kept) for name, a in pictures[i].items()}
    return kept, [_entry(items[i]) for i in kept], arrays


def _entry(item: Item) -> dict[str, Any]:
    size = list(_fit(item.mask, SIDE).shape)
    told = {"image": item.image_id, "size": size, "text": item.text, "head": item.head, "style": item.style}
    return told | {"iou": round(item.iou, 3), "cause": item.cause, "scores": [round(s, 4) for s in item.scores[:5]]}


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

    def __init__(self, items: Sequence[Item], title: str = "Results, one by one", **choices: Any) -> None:
        """Show results; :meth:`from_run` is the short way.

        Args:
            choices: traits to start with, such as ``order="best"``.

        Raises:
            ValueError: no results, or not even one of them fits.
        """
        if not items:
            raise ValueError("there is nothing to show: give at least one result")
        kept, entries, arrays = frames(items, DATA_BYTES)
        if not kept:
            raise ValueError("the first result alone is larger than a page may be; give smaller pictures")
        self.items = tuple(items[i] for i in kept)
        super().__init__()
        if len(kept) < len(items):
            title += f": of {len(items)} the worst {-(-len(kept) // 2)} and the best {len(kept) // 2} fit"
        styles = list(dict.fromkeys(i.style for i in self.items))
        self.show({"title": title, "entries": entries, "styles": styles, "causes": list(CAUSES)}, arrays)
        self.choose(**choices)

    @traitlets.observe("style", "cause")
    def _close_what_is_filtered_out(self, change: Any) -> None:
        if self.opened >= 0 and self.opened not in self.shown():
            self.opened = -1

    @classmethod
    def from_run(
        cls,
        folder: str | Path,
        samples: Iterable[Sample] | None = None,
        variant: str | None = None,
        *,
        model: RefDiff | None = None,
        limit: int = LIMIT,
        **choices: Any,
    ) -> Gallery:
        """Show a run of ``refdiff-lite evaluate``.

        Args:
            folder: its ``--out``. samples: the data that were evaluated; ToyRef and the photographs are found by
                themselves.
            variant: one of those that ran (default: the one that leads the summary).
            model: the model that was evaluated, to see word maps and scores too, which a run does not keep. It segments
                what is shown once more.
            limit: of a longer run, this many: the worst and the best, half of each.

        Raises:
            FileNotFoundError: the folder holds no run that has ended.
            ValueError: it is damaged; no such variant; samples or model are not those evaluated.
        """
        run, summary, rows = read_run(Path(folder))
        variant = variant or summary["variant"]
        if variant not in run["variants"]:
            raise ValueError(f"{folder} has no variant {variant!r}: choose among {', '.join(run['variants'])}")
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
        rows = [row for row in rows if row["variant"] == variant]
        chosen = sorted(ends([row["iou"] for row in rows])[:limit])
        title = f"Results of {variant}, {summary['data']} {summary['split']}"
        if len(chosen) < len(rows):
            title += f": the worst {-(-len(chosen) // 2)} and the best {len(chosen) // 2} of {len(rows)}"
        return cls(list(items_of([rows[i] for i in chosen], samples, model, proposals)), title, **choices)

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
            # A "$" would begin a formula.
            text = textwrap.shorten(item.text, 30, placeholder=" …").replace("$", r"\$")
            show_mask(item.mask, item.image, ax, f"{text}\nIoU {item.iou:.2f}, {item.cause}")
        return figure

    def __repr__(self) -> str:
        counts = Counter(i.cause for i in self.items)
        return f"Gallery({len(self.items)} results: {', '.join(f'{counts[c]} {c}' for c in CAUSES if counts[c])})"
