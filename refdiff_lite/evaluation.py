"""Lesson 8: run variants over a data set, one JSON line per expression and variant, and sum up."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .config import ProposalKind, Variant
from .datasets import Sample
from .images import check_folder, write_text
from .metrics import areas, bootstrap, iou, mean_iou, overall_iou, precision_at
from .pipeline import RefDiff


def evaluate_scene(
    model: RefDiff, sample: Sample, variants: Sequence[Variant], proposals: ProposalKind
) -> Iterator[dict[str, Any]]:
    """All expressions of one image by all variants; the image's own work is done once.

    Yields:
        rows with intersection, union, iou, and ``hit``: whether the object that the chosen mask fits best is the one named.
    """
    scene = model.set_image(sample.path, oracle=sample.masks)
    for record in sample.records:
        for variant in variants:
            kind: ProposalKind = "weak" if variant == "g" else proposals
            result = scene.segment(record.text, variant, kind)
            fits = [iou(result.mask, m) for m in sample.masks]
            intersection, union = areas(result.mask, sample.masks[record.target])
            yield {
                "image_id": sample.image_id,
                "sent_id": record.sent_id,
                "style": record.style,
                "text": record.text,
                "head": result.expression.head,
                "variant": variant,
                "proposals": kind,
                "intersection": intersection,
                "union": union,
                "iou": round(intersection / max(1, union), 6),
                "hit": max(fits) > 0 and int(np.argmax(fits)) == record.target,
                "objects": len(sample.masks),
            }


def summarise(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """oIoU, mIoU, Pr@X, accuracy and chance of a set of rows, each of the first two and accuracy with its interval."""
    rows = list(rows)
    if not rows:
        return {"n": 0}
    i, u = [r["intersection"] for r in rows], [r["union"] for r in rows]
    hits, images = [r["hit"] for r in rows], [r["image_id"] for r in rows]
    return {
        "n": len(rows),
        "images": len(set(images)),
        "oIoU": overall_iou(i, u),
        "oIoU_95": bootstrap(list(zip(i, u, strict=True)), images, lambda x: x[:, 0].sum() / max(1, x[:, 1].sum())),
        "mIoU": mean_iou(i, u),
        "mIoU_95": bootstrap([a / max(1, b) for a, b in zip(i, u, strict=True)], images),
        **{f"Pr@{x}": precision_at(x, i, u) for x in (0.5, 0.6, 0.7, 0.8, 0.9)},
        "accuracy": float(np.mean(hits)),
        "accuracy_95": bootstrap(hits, images),
        "chance": float(np.mean([1 / r["objects"] for r in rows])),
    }


def evaluate(
    model: RefDiff,
    data: Sequence[Sample],
    variants: Sequence[Variant],
    proposals: ProposalKind,
    out: Path,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate and write ``results.jsonl`` and ``summary.json`` into ``out``.

    Returns:
        the summary: the leading variant's numbers (full if it ran) on top, then every variant over all expressions and
        per style; with seed, config and ``about``.
    """
    check_folder(out)
    rows: list[dict[str, Any]] = []
    with tqdm(total=sum(len(s.records) for s in data), desc="evaluating", unit="expr", mininterval=2) as bar:
        for sample in data:
            rows += evaluate_scene(model, sample, variants, proposals)
            bar.update(len(sample.records))
    groups: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for style in ("all", row["style"]):
            groups[row["variant"]][style].append(row)
    lead = "full" if "full" in groups or not groups else next(iter(groups))
    summary = {
        "variant": lead,
        **summarise(groups[lead]["all"]),
        "seed": model.config.seed,
        "preset": model.backbones.name,
        "proposals": proposals,
        **(about or {}),
        "variants": {v: {style: summarise(r) for style, r in styles.items()} for v, styles in groups.items()},
        "config": model.config.to_dict(),
    }
    write_text(out / "results.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def table(summary: dict[str, Any]) -> str:
    """The summary as a Markdown table: accuracy and mIoU in percent, with intervals."""
    lines = ["| variant | style | n | accuracy | chance | mIoU | oIoU | Pr@0.5 |", "|---|---|---|---|---|---|---|---|"]
    for variant, styles in summary["variants"].items():
        for style, s in styles.items():
            if not s["n"]:
                continue

            def percent(key: str, s: dict = s) -> str:
                low, high = s[f"{key}_95"]
                return f"{100 * s[key]:.1f} ({100 * low:.0f}–{100 * high:.0f})"

            lines.append(
                f"| {variant} | {style} | {s['n']} | {percent('accuracy')} | {100 * s['chance']:.0f} "
                f"| {percent('mIoU')} | {percent('oIoU')} | {100 * s['Pr@0.5']:.1f} |"
            )
    return "\n".join(lines)
