"""One self-contained HTML of a run: numbers, curves, slices, and the failures to look at."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ..datasets import Sample
from ..files import write_text
from ..masks import from_rle, resize_nearest
from ..viz import outlined
from .metrics import interval
from .summary import COLUMNS, cell

Row = dict[str, Any]
_LINES = ("-", "--", ":", "-.")
_LEVELS = np.linspace(0.02, 1, 50)
FAILURES = 12


def show_intervals(summary: dict[str, Any], ax: Axes) -> Axes:
    """mIoU of every variant with its 95 % interval, best on top."""
    found = sorted(((v, s["all"]) for v, s in summary["variants"].items()), key=lambda x: x[1]["mIoU"])
    value, low, high = (100 * np.array(x) for x in zip(*((s["mIoU"], *s["mIoU_95"]) for _, s in found), strict=True))
    places = np.arange(len(found))
    ax.hlines(places, low, high, color="#0072b2")
    ax.plot(value, places, "o", color="#0072b2")
    ax.set_yticks(places, [v for v, _ in found])
    ax.set(xlabel="mIoU, percent", xlim=(0, None))
    return ax


def show_precision(rows: Sequence[Row], ax: Axes) -> Axes:
    """Share of sentences whose IoU is at least x, over x, for every variant."""
    for number, variant in enumerate(dict.fromkeys(r["variant"] for r in rows)):
        ious = np.array([r["intersection"] / max(1, r["union"]) for r in rows if r["variant"] == variant])
        share = 100 * (ious[None] >= _LEVELS[:, None]).mean(1)
        ax.plot(_LEVELS, share, _LINES[number % 4], label=variant)
    ax.set(xlabel="IoU threshold x", ylabel="Pr@x, percent", xlim=(0, 1), ylim=(0, 100))
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return ax


def show_alpha(rows: Sequence[Row], alpha: float, ax: Axes) -> Axes:
    """mIoU of the full score over alpha, with its interval, from the same S_G and S_D."""
    curves = np.array([r["alpha_iou"] for r in rows])
    images = [r["image_id"] for r in rows]
    places = np.linspace(0, 1, curves.shape[1])
    band = 100 * np.array([interval(c, images) for c in curves.T])
    ax.fill_between(places, band[:, 0], band[:, 1], color="#0072b2", alpha=0.2, lw=0)
    ax.plot(places, 100 * curves.mean(0), "o-", color="#0072b2")
    ax.axvline(alpha, color="#b35900", ls="--", lw=1)
    ax.annotate("as configured", (alpha, 0.02), xycoords=("data", "axes fraction"), xytext=(4, 0),
                textcoords="offset points", color="#b35900", fontsize=8)  # fmt: skip
    ax.set(xlabel="α (0: S_D alone, 1: S_G alone)", ylabel="mIoU, percent", ylim=(0, None))
    return ax


def show_recall(rows: Sequence[Row], ax: Axes) -> Axes:
    """Share of sentences for which some proposal reaches IoU x: what no ranking can exceed."""
    best = np.array([r["recall"] for r in rows])
    ax.plot(_LEVELS, 100 * (best[None] >= _LEVELS[:, None]).mean(1), color="#0072b2")
    ax.set(xlabel="IoU threshold x", ylabel="recall of proposals, percent", xlim=(0, 1), ylim=(0, 102))
    return ax


def charts(summary: dict[str, Any], rows: Sequence[Row]) -> list[dict[str, str]]:
    """SVG (base64) and description of every chart that the rows allow."""
    full = [r for r in rows if "alpha_iou" in r]
    config = summary["config"]
    alpha = config["weight_g"] / (config["weight_g"] + config["weight_d"])
    found = [
        ("mIoU with 95 % intervals", lambda ax: show_intervals(summary, ax)),
        ("Precision over the IoU threshold", lambda ax: show_precision(rows, ax)),
    ]
    if full:
        found += [
            ("mIoU of full over α, for study: choose α on a validation split", lambda ax: show_alpha(full, alpha, ax)),
            ("Recall of the proposals: the ceiling of every ranking", lambda ax: show_recall(full, ax)),
        ]
    made = []
    for text, draw in found:
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        ax = draw(figure.add_subplot())
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "refdiff"}):
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        made.append({"svg": b64encode(buffer.getvalue()).decode(), "text": text})
    return made


def picture(image: np.ndarray, truth: np.ndarray, mask: np.ndarray, side: int = 320) -> str:
    """The image with the chosen mask and the truth, drawn as everywhere, as base64 JPEG, its longer side ``side``."""
    scale = side / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    pixels = np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    truth, mask = (resize_nearest(m, pixels.shape[:2]) for m in (truth, mask))
    buffer = io.BytesIO()
    Image.fromarray(outlined(pixels, mask, truth)).save(buffer, "JPEG", quality=85)
    return b64encode(buffer.getvalue()).decode()


def gallery(rows: Sequence[Row], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """The worst sentence of each of the worst images, as pictures; with a note where the image can no longer be read."""
    by_id = {s.image_id: s for s in samples}
    worst: dict[int, Row] = {}
    for row in sorted((r for r in rows if "error" not in r and r["iou"] < 0.5), key=lambda r: (r["iou"], r["sent_id"])):
        worst.setdefault(row["image_id"], row)
    found = []
    for row in list(worst.values())[:FAILURES]:
        sample = by_id[row["image_id"]]
        target = next(r.target for r in sample.records if r.sent_id == row["sent_id"])
        mask = from_rle({"size": sample.size, "counts": row["rle"]})
        try:
            found.append({"row": row, "jpeg": picture(sample.image(), sample.masks[target], mask)})
        except Exception as error:  # it was there when it was evaluated
            found.append({"row": row, "note": f"no picture: {error}"})
    return found


def write_report(path: Path, summary: dict[str, Any], rows: Sequence[Row], samples: Sequence[Sample]) -> None:
    """Write the report; whatever a user or a data set wrote is escaped in it.

    Args:
        rows: of all variants. samples: the images that were evaluated.
    """
    page = Environment(loader=PackageLoader("refdiff_lite"), autoescape=True, trim_blocks=True)
    text = page.get_template("report.html").render(
        s=summary,
        columns=COLUMNS,
        styles=sorted(style for style in summary["variants"][summary["variant"]] if style != "all"),
        cell=cell,
        charts=charts(summary, rows),
        errors=[r for r in rows if "error" in r],
        gallery=gallery([r for r in rows if r["variant"] == summary["variant"]], samples),
    )
    write_text(path, text)
