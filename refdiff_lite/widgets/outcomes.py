"""What became of each sentence of a run: read from its folder, with pictures decoded only when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import VARIANTS
from ..datasets import Sample
from ..evaluation.metrics import iou
from ..masks import from_rle
from ..pipeline import RefDiff
from ..scene import Scene

CAUSES = ("right", "loose outline", "twin", "other kind", "nothing found", "error")
"""Right object well outlined; right object, IoU below 0.5; another of its kind; another kind; no mask; not evaluated."""
RIVALS = 5
Row = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One sentence's outcome.

    Attributes:
        image: (H, W, 3) uint8. mask, truth: (H, W) bool.
        cause: one of CAUSES.
        word_map: (h, w) in [0, 1], where it is known. scores: the proposals' S, best first, where they are known.
        rivals: (K, h, w) bool, the first proposals in the order of scores, where they are known.
        other: (H, W) bool, what another run chose, and other_iou its IoU, where two are compared.
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
    rivals: np.ndarray | None = None
    other: np.ndarray | None = None
    other_iou: float | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of an :class:`Item` without any pixel; size is (H, W)."""

    image_id: int
    size: tuple[int, int]
    text: str
    head: str
    style: str
    iou: float
    cause: str
    other_iou: float | None = None

    @property
    def change(self) -> str:
        """ "gained" or "lost" where only one of two runs reaches IoU 0.5, "" where they agree or there is no other."""
        if self.other_iou is None or (self.iou >= 0.5) == (self.other_iou >= 0.5):
            return ""
        return "gained" if self.iou >= 0.5 else "lost"


def facts_of(item: Item) -> Facts:
    """An item without its pixels."""
    size = (item.mask.shape[0], item.mask.shape[1])
    return Facts(item.image_id, size, item.text, item.head, item.style, item.iou, item.cause, item.other_iou)


def cause(mask: np.ndarray, sample: Sample, target: int) -> str:
    """Why a mask is right or wrong: which object does it fit best, and how well?"""
    return _cause(mask, sample.masks, sample.categories, target)


def _cause(mask: np.ndarray, masks: np.ndarray, categories: Sequence[str], target: int) -> str:
    fits = [iou(mask, m) for m in masks]
    best = int(np.argmax(fits))
    if fits[best] == 0:
        return "nothing found"
    if best == target:
        return "right" if fits[best] >= 0.5 else "loose outline"
    return "twin" if categories[best] == categories[target] else "other kind"


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


class RunItems(Sequence[Item]):
    """Rows of a run as items. Each access decodes its own picture, and with a model segments its sentence once more.

    Attributes:
        facts: of every row, known without its picture.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        samples: Iterable[Sample],
        model: RefDiff | None = None,
        proposals: str = "",
        others: Sequence[Row] | None = None,
    ) -> None:
        """Join rows with the samples that were evaluated.

        Args:
            others: rows of another run of the same sentences.

        Raises:
            ValueError: the samples are not those that were evaluated, or the other run lacks a sentence.
        """
        self.rows, self.model, self.proposals = rows, model, proposals
        self._samples = {s.image_id: s for s in samples}
        self._targets = {(s.image_id, r.sent_id): r.target for s in self._samples.values() for r in s.records}
        self._others = {self._key(row): row for row in others or ()}
        self._masks: tuple[int, np.ndarray] | None = None
        self._scene: tuple[int, Scene] | None = None
        for row in rows:
            if self._key(row) not in self._targets:
                raise ValueError(
                    f"sentence {row['sent_id']} of image {row['image_id']} is not in these samples: give those evaluated"
                )
            if others is not None and self._key(row) not in self._others:
                raise ValueError(f"the run to compare with has no sentence {row['sent_id']} of image {row['image_id']}")
        self.facts = [self._facts(row) for row in rows]

    @staticmethod
    def _key(row: Row) -> tuple[int, int]:
        return row["image_id"], row["sent_id"]

    def _truths(self, sample: Sample) -> np.ndarray:
        """All masks of a sample, (N, H, W) bool; those of the last one are kept, for its sentences follow each other."""
        if self._masks is None or self._masks[0] != sample.image_id:
            self._masks = sample.image_id, np.asarray(sample.masks)
        return self._masks[1]

    def _facts(self, row: Row) -> Facts:
        sample, other = self._samples[row["image_id"]], self._others.get(self._key(row))
        mask, target = from_rle({"size": sample.size, "counts": row["rle"]}), self._targets[self._key(row)]
        why = "error" if "error" in row else _cause(mask, self._truths(sample), sample.categories, target)
        told = (row["text"], row["head"], row["style"], row["iou"], why)
        return Facts(sample.image_id, sample.size, *told, None if other is None else other["iou"])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        row, facts = self.rows[i], self.facts[i]
        sample, other = self._samples[row["image_id"]], self._others.get(self._key(row))
        image = sample.image() if sample.found else np.full((*sample.size, 3), 128, np.uint8)
        truths = self._truths(sample)
        told: dict[str, Any] = {}
        if self.model is not None and sample.found and row["variant"] in VARIANTS and "error" not in row:
            told = self._told(row, image, truths)
        if other is not None:
            told |= {"other": from_rle({"size": sample.size, "counts": other["rle"]}), "other_iou": other["iou"]}
        mask, truth = from_rle({"size": sample.size, "counts": row["rle"]}), truths[self._targets[self._key(row)]]
        words = (facts.text, facts.head, facts.style, facts.iou, facts.cause)
        return Item(sample.image_id, image, mask, truth, *words, **told)

    def _told(self, row: Row, image: np.ndarray, truths: np.ndarray) -> dict[str, Any]:
        """What only the model knows: the word's map, all scores, the best proposals."""
        assert self.model is not None
        kind = "weak" if row["variant"] == "g" else self.proposals
        if self._scene is None or self._scene[0] != row["image_id"]:
            self._scene = row["image_id"], self.model.set_image(image, oracle=truths)
        result = self._scene[1].segment(row["text"], row["variant"], kind)  # type: ignore[arg-type]
        order = result.scores["S"].argsort(descending=True).tolist()
        scores = tuple(float(result.scores["S"][k]) for k in order)
        return {"word_map": result.word_map, "scores": scores, "rivals": result.proposals[order[:RIVALS]]}
