"""ToyRef as it is bundled: COCO instances and REFER-style references."""

from __future__ import annotations

from dataclasses import replace

from ..files import data_dir
from .formats import read_json
from .records import Sample, build_samples

SPLITS = ("val", "test", "unseen")
STYLES = ("noun", "toyref", "toyref+", "toyref-g")
ORDINALS = "toyref-ord"
"""A fifth style with a file of its own, read only where it is asked for: "all" means the four others."""


def load_toyref(split: str = "val", style: str | None = None, limit: int | None = None) -> list[Sample]:
    """Read a bundled split.

    Args:
        split: "val" (to choose on), "test" (to report on) or "unseen" (pairs of category and tint never trained on).
        style: keep only expressions of this style; "toyref-ord" are those with a place in an order.
        limit: keep only the first images.

    Raises:
        ValueError: no such split or style.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if style not in (None, *STYLES, ORDINALS):
        raise ValueError(f"unknown style {style!r}: choose one of {', '.join((*STYLES, ORDINALS))}")
    folder = data_dir() / "toyref" / split
    refs_file = "refs-ord.json" if style == ORDINALS else "refs.json"
    instances, refs = read_json(folder / "instances.json"), read_json(folder / refs_file)
    samples = build_samples(instances, refs, lambda image: (folder / "images" / image["file_name"], None))[:limit]
    return [replace(s, records=tuple(r for r in s.records if style in (None, r.style))) for s in samples]
