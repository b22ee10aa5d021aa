"""Lesson 8: from rows to numbers, slices, and tables beside those of the literature."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from math import ceil, floor
from typing import Any

import numpy as np

from .metrics import THRESHOLDS, interval, mean_iou, overall_iou, precision_at
from .published import PUBLISHED, Published

Row = dict[str, Any]
BUYS = (("gs", "g"), ("full", "gs"), ("full", "ds"), ("full", "global-local"), ("oracle", "full"))
BUYS += (("refam", "gs"), ("concept", "gs"), ("hybridgl", "ds"), ("relations", "full"))
"""Pairs whose difference says what a part buys."""


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """oIoU, mIoU, Pr@X, accuracy and chance of a set of rows; all but chance with 95 % intervals by image."""
    rows = list(rows)
    if not rows:
        return {"n": 0}
    i, u = [r["intersection"] for r in rows], [r["union"] for r in rows]
    hits, images = [r["hit"] for r in rows], [r["image_id"] for r in rows]
    ious = [a / max(1, b) for a, b in zip(i, u, strict=True)]
    found = {
        "n": len(rows),
        "images": len(set(images)),
        "errors": sum("error" in r for r in rows),
        "oIoU": overall_iou(i, u),
        "oIoU_95": interval(i, images, u),
        "mIoU": mean_iou(i, u),
        "mIoU_95": interval(ious, images),
    }
    for x in THRESHOLDS:
        found[f"Pr@{x}"] = precision_at(x, i, u)
        found[f"Pr@{x}_95"] = interval([v >= x for v in ious], images)
    return found | {
        "accuracy": float(np.mean(hits)),
        "accuracy_95": interval(hits, images),
        "chance": float(np.mean([1 / max(1, r["objects"]) for r in rows])),
    }


def gains(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """mIoU and accuracy that one variant has over another on the same sentences, with intervals of the paired difference."""
    found: dict[str, dict[tuple[int, int], tuple[float, float]]] = defaultdict(dict)
    for r in rows:
        found[r["variant"]][r["image_id"], r["sent_id"]] = r["intersection"] / max(1, r["union"]), float(r["hit"])
    told: dict[str, dict[str, Any]] = {}
    for more, less in BUYS:
        if both := [k for k in found.get(more, ()) if k in found.get(less, ())]:
            differences = np.subtract([found[more][k] for k in both], [found[less][k] for k in both])
            one: dict[str, Any] = {"n": len(both)}
            for metric, values in zip(("mIoU", "accuracy"), differences.T, strict=True):
                one |= {metric: float(values.mean())}
                one |= {f"{metric}_95": interval(values, [image for image, _ in both], bounds=(-1, 1))}
            told[f"{more} − {less}"] = one
    return told


SIZES = ("under 2 % of the image", "2 to 8 %", "over 8 %")


def _size(row: Row) -> str:
    share = row["area"] / max(1, row["pixels"])
    return SIZES[(share >= 0.02) + (share >= 0.08)]


SLICES: dict[str, Callable[[Row], str]] = {
    "style": lambda r: r["style"] or "–",
    "others of its category": lambda r: str(min(3, r["same"])) + ("+" if r["same"] >= 3 else ""),
    "size of the object": _size,
    "direction cues": lambda r: ", ".join(r["cues"]) or "none",
}


def slices(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, Any]]]:
    """Summaries of the rows by style, by rivals of the same category, by size, by direction cues."""
    rows = list(rows)
    groups: dict[str, dict[str, list[Row]]] = {name: defaultdict(list) for name in SLICES}
    for row in rows:
        for name, of in SLICES.items():
            groups[name][of(row)].append(row)

    def order(key: str) -> tuple[int, str]:
        return (SIZES.index(key) if key in SIZES else 0), key

    return {name: {k: summarise(found[k]) for k in sorted(found, key=order)} for name, found in groups.items()}


def comparable(about: dict[str, Any]) -> tuple[list[tuple[Published, float]], list[str]]:
    """Published numbers of the same data and split, and what keeps ours from being compared with them."""
    split = about["split"] if about.get("split_by") != "google" else "val(google)"
    rows = [(p, p.values[about["data"], split]) for p in PUBLISHED if (about["data"], split) in p.values]
    notes = []
    if not rows:
        return [], [f"nothing was published on {about['data']} {split}: compare these numbers only with one another"]
    if not about["complete"]:
        notes.append(f"only {about['images']} of {about['images_total']} images were evaluated")
    if about.get("refs") != about.get("published_refs"):
        notes.append(f"the split holds {about['refs']} references here, {about['published_refs']} were published")
    ours = f"networks are the preset {about['preset']}, our proposals {about['proposals']}"
    if about["proposals"] == "sam":
        ours += f" ({about['sam']})"
    notes.append(
        f"our {ours}; what each published row used stands beside it, and better masks alone raise every number"
    )
    notes.append("oIoU and mIoU are two metrics: compare a column with its own name alone")
    return rows, notes


def percent(value: float, low: float, high: float) -> str:
    """A share with its interval, in percent; the bounds are rounded outwards, so that no interval looks like a point."""
    return f"{100 * value:.1f} ({floor(round(100 * low, 6))}–{ceil(round(100 * high, 6))})"


def cell(s: dict[str, Any], key: str) -> str:
    """A number of a summary as :func:`percent`."""
    return percent(s[key], *s[f"{key}_95"])


COLUMNS = ("accuracy", "mIoU", "oIoU", *(f"Pr@{x}" for x in THRESHOLDS))


def table(summary: dict[str, Any]) -> str:
    """The summary as Markdown: percent with 95 % intervals, then the published numbers and what may be compared."""
    lines = ["| variant | style | n | errors | chance | " + " | ".join(COLUMNS) + " |"]
    lines.append("|" + "---|" * (5 + len(COLUMNS)))
    for variant, styles in summary["variants"].items():
        for style, s in styles.items():
            if s["n"]:
                numbers = " | ".join(cell(s, c) if c in COLUMNS[:4] else f"{100 * s[c]:.1f}" for c in COLUMNS)
                lines.append(
                    f"| {variant} | {style} | {s['n']} | {s['errors']} | {100 * s['chance']:.0f} | {numbers} |"
                )
    if "comparable" in summary:
        if rows := summary["published"]:
            lines += [
                "",
                f"| published | networks | metric | {summary['data']} {summary['split']} |",
                "|---|---|---|---|",
            ]
            lines += [f"| {r['method']} | {r['networks']} | {r['metric']} | {r['value']:.2f} |" for r in rows]
        lines += ["", *(f"- {note}" for note in summary["comparable"])]
    return "\n".join(lines)


def latex(summary: dict[str, Any]) -> str:
    """Rows for a LaTeX table: method, oIoU, mIoU, Pr@0.5 in percent; published ones have their one metric."""
    lines = [f"% {summary['data']} {summary['split']}, proposals {summary['proposals']}, n = {summary['n']}"]
    lines += [f"% not comparable: {note}".replace("%", r"\%").replace(r"\%", "%", 1) for note in summary["comparable"]]
    for variant, styles in summary["variants"].items():
        s = styles["all"]
        lines.append(rf"{variant} & {100 * s['oIoU']:.2f} & {100 * s['mIoU']:.2f} & {100 * s['Pr@0.5']:.2f} \\")
    lines += [r"\midrule"] if summary["published"] else []
    lines += [
        f"% {method}: {used}" for method, used in {r["method"]: r["networks"] for r in summary["published"]}.items()
    ]
    for row in summary["published"]:
        o, m = (f"{row['value']:.2f}" if row["metric"] == name else "--" for name in ("oIoU", "mIoU"))
        lines.append(rf"{row['method']} & {o} & {m} & -- \\")
    return "\n".join(lines) + "\n"
