"""ToyRef as it is bundled: COCO instances and REFER-style references."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
from pycocotools import mask as coco_mask

from ..paths import data_dir
from .records import Record, Sample

SPLITS = ("val", "test", "unseen")
STYLES = ("noun", "toyref", "toyref+", "toyref-g")


def load_toyref(split: str = "val", style: str | None = None, limit: int | None = None) -> list[Sample]:
    """Read a bundled split.

    Args:
        split: "val" (to choose on), "test" (to report on) or "unseen" (pairs of category and tint never trained on).
        style: keep only expressions of this style.
        limit: keep only the first images.

    Raises:
        ValueError: no such split or style.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if style is not None and style not in STYLES:
        raise ValueError(f"unknown style {style!r}: choose one of {', '.join(STYLES)}")
    folder = data_dir() / "toyref" / split
    instances = json.loads((folder / "instances.json").read_text())
    names = {c["id"]: c["name"] for c in instances["categories"]}
    annotations, refs = defaultdict(list), defaultdict(list)
    for annotation in instances["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    for ref in json.loads((folder / "refs.json").read_text()):
        refs[ref["image_id"]].append(ref)
    scenes = []
    for image in instances["images"][:limit]:
        found = annotations[image["id"]]
        place = {a["id"]: i for i, a in enumerate(found)}
        records = tuple(
            Record(s["sent_id"], s["sent"], s["style"], place[ref["ann_id"]])
            for ref in refs[image["id"]]
            for s in ref["sentences"]
            if style in (None, s["style"])
        )
        masks = np.stack([coco_mask.decode(a["segmentation"]) > 0 for a in found])
        path = folder / "images" / image["file_name"]
        scenes.append(Sample(image["id"], path, masks, tuple(names[a["category_id"]] for a in found), records))
    return scenes
