"""Run variants over a data set, on one process or many, so that a kill loses nothing and nothing counts twice.

``accelerate launch --num_processes N -m refdiff_lite.evaluation refcoco …`` takes the arguments of
``refdiff-lite evaluate`` and shares the images out among N processes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..config import BASELINES, VARIANTS, ProposalKind
from ..datasets import Record, Sample
from ..expression import parse
from ..files import check_folder, write_text
from ..fusion import choose, fuse
from ..masks import to_rle
from ..networks import device_and_dtype
from ..networks.compat import versions
from ..pipeline import RefDiff, Scene
from .baselines import baseline
from .journal import Journal, at_work, errors, weights_digest
from .metrics import areas, iou
from .report import write_report
from .summary import comparable, gains, latex, slices, summarise, table

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import PartialState

__all__ = ["evaluate", "evaluate_scene", "summarise", "table"]
METHODS = (*VARIANTS, *BASELINES)
ALPHAS = tuple(i / 10 for i in range(11))


def processes() -> PartialState:
    """This process among those that ``accelerate launch`` started; alone without it. Call it before loading networks.

    A process that is done waits for the slowest, however long that takes.
    """
    from accelerate import PartialState

    return PartialState(cpu=device_and_dtype()[0].type == "cpu", timeout=timedelta(days=30))


def predict(scene: Scene, record: Record, method: str, kind: ProposalKind, truth: np.ndarray) -> dict[str, Any]:
    """One sentence by one variant or baseline: its mask (H, W), and for "full" the IoU that each alpha would give."""
    if method in VARIANTS:
        result = scene.segment(record.text, method, "weak" if method == "g" else kind)  # type: ignore[arg-type]
        extra: dict[str, Any] = {}
        if method == "full":
            fits = _ious(result.proposals, truth, scene)
            s_g, s_d = result.scores["S_G"], result.scores["S_D"]
            chosen = [choose(fuse(s_g, s_d, a, 1 - a)) for a in ALPHAS]
            extra["alpha_iou"] = [0.0 if i is None else round(fits[i], 4) for i in chosen]
            extra["recall"] = round(max(fits, default=0.0), 4)
        return {"mask": result.mask, **extra}
    parsed = parse(record.text)
    proposals = scene.proposals(kind, scene.word_map(parsed) if kind == "weak" else None)
    best = baseline(method, scene, parsed, proposals, record.sent_id, _ious(proposals.masks, truth, scene))
    return {"mask": np.zeros(scene.full_size, bool) if best is None else scene.to_full(proposals.masks[best])}


def _ious(masks: Iterable[np.ndarray] | torch.Tensor, truth: np.ndarray, scene: Scene) -> list[float]:
    return [iou(scene.to_full(m), truth) for m in masks]


def evaluate_scene(
    model: RefDiff, sample: Sample, variants: Sequence[str], proposals: ProposalKind
) -> Iterator[dict[str, Any]]:
    """All expressions of one image by all variants and baselines; the image's own work is done once.

    Yields:
        rows with intersection, union, iou, the mask as RLE, and ``hit``: whether the object that the mask fits best
        is the one named. What fails is a row with its reason as ``error``, an empty mask, and so IoU 0.
    """
    broken, scene = "", None
    masks = np.zeros((len(sample.categories), *sample.size), bool)
    try:
        masks = sample.masks
        scene = model.set_image(sample.image(), oracle=masks)
    except Exception as error:
        broken = _reason(error)
    for record in sample.records:
        truth = masks[record.target]
        category = sample.categories[record.target]
        for variant in variants:
            found: dict[str, Any] = {"mask": np.zeros(sample.size, bool)}
            reason, head, cues = broken, "", tuple[str, ...]()
            try:
                if scene is not None:
                    parsed = parse(record.text)
                    head, cues = parsed.head, parsed.cues
                    found = predict(scene, record, variant, proposals, truth)
            except Exception as error:
                reason = _reason(error)
            mask = found.pop("mask")
            fits = [iou(mask, m) for m in masks]
            intersection, union = areas(mask, truth)
            yield {
                "image_id": sample.image_id,
                "sent_id": record.sent_id,
                "style": record.style,
                "text": record.text,
                "head": head,
                "variant": variant,
                "proposals": "weak" if variant == "g" else proposals,
                "intersection": intersection,
                "union": union,
                "iou": round(intersection / max(1, union), 6),
                "hit": max(fits, default=0) > 0 and int(np.argmax(fits)) == record.target,
                "objects": len(masks),
                "same": sample.categories.count(category) - 1,
                "area": int(truth.sum()),
                "pixels": truth.size,
                "cues": list(cues),
                "rle": to_rle(mask)["counts"],
                **found,
                **({"error": reason} if reason else {}),
            }


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def evaluate(
    model: RefDiff,
    data: Sequence[Sample],
    variants: Sequence[str],
    proposals: ProposalKind,
    out: Path,
    about: dict[str, Any] | None = None,
    *,
    limit: int | None = None,
    shard: tuple[int, int] = (1, 1),
    retry: bool = False,
    fresh: bool = False,
    team: PartialState | None = None,
) -> dict[str, Any]:
    """Evaluate, or go on where a run into ``out`` was stopped; write results, tables and a report.

    Args:
        variants: among :data:`METHODS`. about: what the summary says of the data.
        limit: only the first images. shard: (i, n), only every n-th image from the i-th on; all shards may share
            ``out``, or bring their ``parts/*.jsonl`` together in one folder later.
        retry: run images with errors again. fresh: forget what lies in ``out``. team: from :func:`processes`.

    Returns:
        the summary (see :func:`conclude`); empty on all but the main process.

    Raises:
        ValueError: ``out`` holds a run of another config, other weights or other data, or another command is at work
            there on the same images.
    """
    if unknown := [v for v in variants if v not in METHODS]:
        raise ValueError(f"unknown variant {unknown[0]!r}: choose among {', '.join(METHODS)}")
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"there is no shard {shard[0]}/{shard[1]}: write i/n with i from 1 to n")
    team = team or processes()
    about = {"data": "custom", "split": "–"} | (about or {})
    identity = {
        "data": {k: about[k] for k in ("data", "split", "split_by", "style") if k in about},
        "variants": list(variants),
        "proposals": proposals,
        "config": model.config.to_dict(),
        "weights": weights_digest(model.networks, proposals == "sam"),
        "dtype": str(model.networks.dtype),
        "versions": versions(),
    }
    chosen = list(data[:limit])
    mine = chosen[shard[0] - 1 :: shard[1]][team.process_index :: team.num_processes]
    journal = Journal(check_folder(out))
    with at_work(journal.folder, shard, fresh) if team.is_main_process else nullcontext():
        if team.is_main_process:
            journal.open(identity, fresh)
        team.wait_for_everyone()
        journal.open(identity)
        done = {i for i, rows in journal.rows(mine).items() if not (retry and errors(rows))}
        team.wait_for_everyone()  # nobody writes before everybody has read
        worker = f"shard{shard[0]}of{shard[1]}-process{team.process_index}of{team.num_processes}"
        _work(model, mine, done, variants, proposals, journal, worker, not team.is_main_process)
        team.wait_for_everyone()
        if not team.is_main_process:
            return {}
        with journal.alone:
            return conclude(model, data, chosen, variants, proposals, journal, about)


def _work(
    model: RefDiff, samples: Sequence[Sample], done: set[int], variants: Sequence[str], proposals: ProposalKind,
    journal: Journal, worker: str, silent: bool,
) -> None:  # fmt: skip
    """Evaluate what is not done, image by image, with rate and time left."""
    todo = [s for s in samples if s.image_id not in done]
    total, already = (sum(len(s.records) for s in part) for part in (samples, [s for s in samples if s not in todo]))
    bad = 0
    with tqdm(total=total, initial=already, desc="evaluating", unit="expr", mininterval=2, disable=silent) as bar:
        for sample in todo:
            rows = list(evaluate_scene(model, sample, variants, proposals))
            journal.append(worker, sample, rows)
            bad += errors(rows)
            bar.update(len(sample.records))
            if bad:
                bar.set_postfix(errors=bad)


def conclude(
    model: RefDiff, data: Sequence[Sample], chosen: Sequence[Sample], variants: Sequence[str],
    proposals: ProposalKind, journal: Journal, about: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Sum up what is done so far, in the order of the data.

    Returns:
        the summary: the leading variant's numbers (full if it ran) on top; then every variant over all expressions
        and per style, slices, gains, published numbers, and what keeps the run from being compared with them.
    """
    found = journal.rows(chosen)
    done = [s for s in chosen if s.image_id in found]
    rows = [row for s in done for row in found[s.image_id]]
    groups: dict[str, dict[str, list]] = {v: defaultdict(list) for v in variants}
    for row in rows:
        for style in dict.fromkeys(("all", row["style"])):
            groups[row["variant"]][style].append(row)
    lead = "full" if "full" in groups else variants[0]
    about = about | {
        "images_total": len(data), "complete": len(done) == len(data), "preset": model.networks.name,
        "proposals": proposals, "missing_images": [s.image_id for s in chosen if not s.found],
    }  # fmt: skip
    top = summarise(groups[lead]["all"])
    literature, notes = comparable(about | {"images": len(done)})
    summary = {
        "variant": lead,
        **top,
        **about,
        "images": len(done),
        "seed": model.config.seed,
        "variants": {v: {style: summarise(r) for style, r in styles.items()} for v, styles in groups.items()},
        "slices": slices(groups[lead]["all"]),
        "gains": gains(rows),
        "published": [{"method": p.method, "metric": p.metric, "value": value} for p, value in literature],
        "comparable": notes,
        "config": model.config.to_dict(),
    }
    write_text(journal.folder / "results.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    write_text(journal.folder / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    write_text(journal.folder / "table.md", table(summary) + "\n")
    write_text(journal.folder / "table.tex", latex(summary))
    write_report(journal.folder / "report.html", summary, rows, done)
    return summary
