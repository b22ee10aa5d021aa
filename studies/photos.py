"""The photographs: ``python -m studies.photos`` writes their COCO and REFER files from the outlines, and a contact sheet.

Outlines were drawn by hand, in pixels; a thing that stands behind another loses what that one covers. ``--recall`` then
measures which things each generator of proposals finds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.figure import Figure

from refdiff_lite import proposals as generators
from refdiff_lite.datasets.photos import load_photos
from refdiff_lite.evaluation.metrics import iou
from refdiff_lite.files import data_dir, write_text, write_whole
from refdiff_lite.images import load_image
from refdiff_lite.masks import decode, to_rle
from refdiff_lite.viz import show_image

GENERATORS = {"felzenszwalb": generators.felzenszwalb, "grouping": generators.grouping}
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00")


def annotate(outlines: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO instances and REFER references from outlines by photograph."""
    images, annotations, refs = [], [], []
    for number, photo in enumerate(outlines.values(), start=1):
        height, width = photo["size"]
        images.append({"id": number, "file_name": photo["file"], "height": height, "width": width,
                       "source": photo["source"], "licence": photo["licence"]})  # fmt: skip
        whole = {t["name"]: decode([t["outline"]], (height, width)) for t in photo["things"]}
        for thing in photo["things"]:
            mask = whole[thing["name"]] & ~np.any(
                [whole[n] for n in thing["behind"]] or [np.zeros_like(whole[thing["name"]])], 0
            )
            ann_id = 100 * number + len([a for a in annotations if a["image_id"] == number])
            runs = to_rle(mask)
            rows, columns = np.nonzero(mask)
            box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
            annotations.append({"id": ann_id, "image_id": number, "category_id": 1, "iscrowd": 0, "area": int(mask.sum()),
                                "bbox": box, "name": thing["name"], "segmentation": runs})  # fmt: skip
            sentences = [{"sent_id": 1000 * number + 10 * (ann_id % 100) + i, "raw": s, "sent": s, "tokens": s.split(), "style": "photos"}
                         for i, s in enumerate(thing["says"])]  # fmt: skip
            refs.append({"ref_id": len(refs), "ann_id": ann_id, "category_id": 1, "image_id": number, "file_name": photo["file"],
                         "split": "test", "sent_ids": [s["sent_id"] for s in sentences], "sentences": sentences})  # fmt: skip
    return {"images": images, "categories": [{"id": 1, "name": "thing"}], "annotations": annotations}, refs


def contact_sheet(outlines: dict[str, Any], folder: Path) -> Figure:
    """Every photograph with its masks' outlines and names."""
    figure = Figure(figsize=(16, 9), dpi=75, layout="constrained")
    for place, (photo, sample) in enumerate(zip(outlines.values(), load_photos(), strict=True), start=1):
        ax = figure.add_subplot(2, 4, place)
        show_image(load_image(folder / "images" / photo["file"]), ax, photo["file"])
        for thing, mask, colour in zip(photo["things"], sample.masks, COLOURS, strict=False):
            ax.contour(mask, [0.5], colors=[colour], linewidths=1.5)
            rows, columns = np.nonzero(mask)
            ax.text(columns.mean(), rows.mean(), thing["name"], color="black", fontsize=8, ha="center",
                    bbox={"facecolor": colour, "alpha": 0.8, "pad": 1, "linewidth": 0})  # fmt: skip
    return figure


def recall(level: float = 0.5) -> dict[str, dict[str, float]]:
    """Of each generator that needs no weights: share of the things with a proposal of this IoU, mean best IoU, proposals."""
    found: dict[str, dict[str, float]] = {}
    for name, generate in GENERATORS.items():
        best, count = [], []
        for sample in load_photos():
            masks = generate(load_image(sample.path)).numpy()
            count.append(len(masks))
            best += [max((iou(m, truth) for m in masks), default=0.0) for truth in sample.masks]
        found[name] = {
            "recall": float(np.mean(np.array(best) >= level)), "best": float(np.mean(best)), "proposals": float(np.mean(count))
        }  # fmt: skip
    return found


def main(
    measure: Annotated[bool, typer.Option("--recall", help="Measure the generators of proposals, too.")] = False,
) -> None:
    """Write instances.json, refs.json and contact.jpg."""
    folder = data_dir() / "photos"
    outlines = json.loads((folder / "outlines.json").read_text())
    instances, refs = annotate(outlines)
    write_text(folder / "instances.json", json.dumps(instances, separators=(",", ":")) + "\n")
    write_text(folder / "refs.json", json.dumps(refs, separators=(",", ":")) + "\n")
    figure = contact_sheet(outlines, folder)
    write_whole(folder / "contact.jpg", lambda path: figure.savefig(path))
    if measure:
        print("| generator | things found at IoU 0.5 | mean best IoU | proposals a photograph |\n|---|---|---|---|")
        for name, row in recall().items():
            print(f"| {name} | {100 * row['recall']:.0f} % | {100 * row['best']:.0f} % | {row['proposals']:.0f} |")


if __name__ == "__main__":
    typer.run(main)
