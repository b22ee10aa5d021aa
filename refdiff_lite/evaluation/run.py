"""Run variants over a data set, on one process or many, so that a kill loses nothing and nothing counts twice.

``accelerate launch --num_processes N -m refdiff_lite.evaluation refcoco …`` takes the arguments of
``refdiff-lite evaluate`` and shares the images out among N processes.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..config import VARIANTS, ProposalKind
from ..datasets import Record, Sample
from ..expression import parse
from ..files import check_folder, write_text
from ..fusion import choose, fuse
from ..masks import to_rle
from ..networks import device_and_dtype
from ..pipeline import RefDiff
from ..scene import Scene
from .baselines import baseline
from .journal import Journal, errors, networks_identity
from .metrics import areas, iou
from .plan import METHODS, Plan, make_plan
from .report import write_report
from .summary import comparable, gains, latex, slices, summarise, table

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import PartialState

__all__ = ["METHODS", "carry_out", "evaluate", "evaluate_scene", "make_plan", "summarise", "table"]
ALPHAS = tuple(i / 10 for i in range(11))


def processes() -> PartialState:
    """This process among those that ``accelerate launch`` started; alone without it. Call it before loading networks.

    A process that is done waits for the slowest, however long that takes.
    """
    from accelerate import PartialState

    return PartialState(cpu=device_and_dtype()[0].type == "cpu", timeout=timedelta(days=30))


def predict(scene: Scene, record: Record, method: str, kind: ProposalKind, truth: np.ndarray) -> dict[str, Any]:
    """One sentence by one variant or baseline: its mask (H, W), what was not read of the sentence, and for "full"
    the IoU that each alpha would give."""
    if method in VARIANTS:
        result = scene.segment(record.text, method, "weak" if method == "g" else kind)  # type: ignore[arg-type]
        extra: dict[str, Any] = {"unread": _printable(result.unread)} if result.unread else {}
        if method == "full":
            fits = _ious(result.proposals, truth, scene)
            s_g, s_d = result.scores["S_G"], result.scores["S_D"]
            chosen = [choose(fuse(s_g, s_d, a, 1 - a)) for a in ALPHAS]
            extra["alpha_iou"] = [0.0 if i is None else round(fits[i], 4) for i in chosen]
            extra["recall"] = round(max(fits, default=0.0), 4)
        return {"mask": result.mask, **extra}
    parsed = parse(record.text)
    proposals = scene.proposals(kind, scene.word_map(parsed) if kind == "weak" else None)
    fits = _ious(proposals.masks, truth, scene)
    best = baseline(method, scene, parsed, proposals, record.sent_id, fits, record.style)
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
    masks = np.zeros((len(sample.categories), *(max(1, n) for n in sample.size)), bool)
    try:
        masks = sample.masks
        scene = model.set_image(sample.image(), oracle=masks)
    except Exception as error:
        broken = _reason(error)
    for record in sample.records:
        damaged = sample.why_not(record)
        category = sample.categories[record.target]
        for variant in variants:
            reason, told, found = broken or damaged, {"head": "", "cues": []}, dict[str, Any]()
            try:
                if scene is not None and not reason:
                    parsed = parse(record.text)
                    told = {"head": _printable(parsed.head), "cues": list(parsed.cues)}
                    found = predict(scene, record, variant, proposals, masks[record.target])
                    found |= _fit(found.pop("mask"), masks, record.target)
            except Exception as error:
                reason, found = _reason(error), {}
            yield {
                "image_id": sample.image_id,
                "sent_id": record.sent_id,
                "style": _printable(str(record.style)),
                "text": _printable(record.text),
                **told,
                "variant": variant,
                "proposals": "weak" if variant == "g" else proposals,
                **(found or _fit(np.zeros_like(masks[0]), masks, record.target)),
                "objects": len(masks),
                "same": sample.categories.count(category) - 1,
                "area": int(masks[record.target].sum()),
                "pixels": masks[0].size,
                **({"error": reason} if reason else {}),
            }


def _fit(mask: np.ndarray, masks: np.ndarray, target: int) -> dict[str, Any]:
    """How well a mask fits the object that was named, and whether it fits no other better."""
    fits = [iou(mask, m) for m in masks]
    intersection, union = areas(mask, masks[target])
    return {
        "intersection": intersection,
        "union": union,
        "iou": round(intersection / max(1, union), 6),
        "hit": max(fits) > 0 and int(np.argmax(fits)) == target,
        "rle": to_rle(mask)["counts"],
    }


def _printable(text: str) -> str:
    """Text that any file can hold: halves of surrogate pairs are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _reason(error: Exception) -> str:
    """Kind and message on one line, without addresses in memory, so that equal failures read alike."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return _printable(re.sub(r"\b0[xX][0-9a-fA-F]{4,}\b", "0x…", text))[:500]


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
        limit: only the first images that have expressions. shard: (i, n), only every n-th image from the i-th on; all
            shards may share ``out``, or bring their ``parts/*.jsonl`` together in one folder later.
        retry: run images with errors again. fresh: forget what lies in ``out``. team: from :func:`processes`.

    Returns:
        the summary (see :func:`conclude`); empty on all but the main process.

    Raises:
        ValueError: see :func:`plan.make_plan`; ``out`` holds a run of another config, other weights, code or data, or
            lines that were damaged or changed; another command is at work there on the same images.
    """
    plan = make_plan(data, variants, proposals, model.config, about, limit, shard)
    return carry_out(model, plan, check_folder(out), retry=retry, fresh=fresh, team=team)


def carry_out(
    model: RefDiff, plan: Plan, out: Path, *, retry: bool = False, fresh: bool = False, team: PartialState | None = None
) -> dict[str, Any]:
    """:func:`evaluate`, after its arguments were checked."""
    team = team or processes()
    identity = plan.identity | networks_identity(model.networks, plan.proposals == "sam")
    journal = Journal(out)
    with journal.at_work(plan.shard, fresh) if team.is_main_process else nullcontext():
        if team.is_main_process:
            journal.open(identity, fresh)
        team.wait_for_everyone()
        journal.open(identity)
        mine = plan.mine[team.process_index :: team.num_processes]
        found = journal.rows(mine, plan.variants)
        done = {i for i, rows in found.items() if not (retry and errors(rows))}
        team.wait_for_everyone()  # nobody writes before everybody has read
        worker = f"shard{plan.shard[0]}of{plan.shard[1]}-process{team.process_index}of{team.num_processes}"
        _work(model, plan, mine, done, journal, worker, not team.is_main_process)
        team.wait_for_everyone()
        if not team.is_main_process:
            return {}
        with journal.alone:
            return conclude(model, plan, journal)


def _work(
    model: RefDiff, plan: Plan, samples: Sequence[Sample], done: set[int], journal: Journal, worker: str, silent: bool
) -> None:
    """Evaluate what is not done, image by image, with rate and time left."""
    total = sum(len(s.records) for s in samples)
    already = sum(len(s.records) for s in samples if s.image_id in done)
    bad = 0
    with tqdm(total=total, initial=already, desc="evaluating", unit="expr", mininterval=2, disable=silent) as bar:
        for sample in samples:
            if sample.image_id in done:
                continue
            rows = list(evaluate_scene(model, sample, plan.variants, plan.proposals))
            journal.append(worker, sample, rows)
            bad += errors(rows)
            bar.update(len(sample.records))
            if bad:
                bar.set_postfix(errors=bad)


def conclude(model: RefDiff, plan: Plan, journal: Journal) -> dict[str, Any]:
    """Sum up what is done so far, in the order of the data.

    Returns:
        the summary: the leading variant's numbers (full if it ran) on top; then every variant over all expressions
        and per style, slices, gains, published numbers, and what keeps the run from being compared with them.
    """
    found = journal.rows(plan.chosen, plan.variants)
    done = [s for s in plan.chosen if s.image_id in found]
    rows = [row for s in done for row in found[s.image_id]]
    groups: dict[str, dict[str, list]] = {v: defaultdict(list) for v in plan.variants}
    for row in rows:
        for style in dict.fromkeys(("all", row["style"])):
            groups[row["variant"]][style].append(row)
    lead = "full" if "full" in groups else plan.variants[0]
    about = plan.about | {
        "images": len(done), "images_total": len(plan.data), "complete": len(done) == len(plan.data),
        "preset": model.networks.name, "sam": model.networks.sam_id, "proposals": plan.proposals,
        "missing_images": [s.image_id for s in plan.chosen if not s.found],
    }  # fmt: skip
    literature, notes = comparable(about)
    summary = {
        "variant": lead,
        **summarise(groups[lead]["all"]),
        **about,
        "rows": len(rows),
        "failed": errors(rows),
        "seed": model.config.seed,
        "variants": {v: {style: summarise(r) for style, r in styles.items()} for v, styles in groups.items()},
        "slices": slices(groups[lead]["all"]),
        "gains": gains(rows),
        "published": [
            {"method": p.method, "networks": p.networks, "metric": p.metric, "value": value} for p, value in literature
        ],
        "comparable": notes,
        "config": model.config.to_dict(),
    }
    write_text(journal.folder / "results.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    write_text(journal.folder / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    write_text(journal.folder / "table.md", table(summary) + "\n")
    write_text(journal.folder / "table.tex", latex(summary))
    write_report(journal.folder / "report.html", summary, rows, done)
    return summary
