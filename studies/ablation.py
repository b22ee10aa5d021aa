"""What does each part of the method buy? ``python -m studies.ablation`` (``make ablation``), on ToyRef test.

Every row changes one thing of ``RefDiffConfig.toy()``, whose constants were chosen on val (those of ds alone too). Intervals are 95 %, by
image; ``change`` compares with the group's first row on the same expressions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import typer
from tqdm.auto import tqdm

from refdiff_lite.attention import AttentionMaps, Kind
from refdiff_lite.config import SUCCESSORS, ProposalKind, RefDiffConfig, Variant
from refdiff_lite.datasets import Sample
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.metrics import interval
from refdiff_lite.evaluation.run import evaluate_scene
from refdiff_lite.files import check_folder, data_dir, write_text, write_whole
from refdiff_lite.networks import Networks, load
from refdiff_lite.networks.compat import cross_attention_modules
from refdiff_lite.pipeline import RefDiff
from refdiff_lite.scene import Scene

METRICS = {"hit": "accuracy", "iou": "mIoU", "recall": "mean IoU of the best proposal"}


class Job(NamedTuple):
    """What must be computed once: lines that differ only in variant and metric share it."""

    config: RefDiffConfig
    nouns: bool
    proposals: ProposalKind


class Row(NamedTuple):
    """One line of the ablation: which variant, judged by which of :data:`METRICS`, after which change."""

    group: str
    name: str
    variant: Variant
    metric: str
    config: RefDiffConfig
    proposals: ProposalKind = "oracle"

    @property
    def job(self) -> Job:
        return Job(self.config, "noun" in self.group, self.proposals)


def rows(layers: list[str]) -> list[Row]:
    """All lines; the first of each group is what the others of the group are compared with."""
    toy = RefDiffConfig.toy
    own = json.loads((data_dir() / "models" / "toy" / "tune.json").read_text())["chosen for ds"]
    ranking = {
        "both branches": "both",
        "none": "none",
        "crop alone (official)": "crop",
        "masked alone (paper)": "masked",
    }
    attention: dict[str, dict[str, Any]] = {
        "as chosen on val": {},
        "logits": {"scores": "logits"},
        "DDIM inversion": {"noise": "ddim"},
        "four draws": {"draws": 4},
        "all layers": {"layers": ""},
        **{f"layer {name}": {"layers": name.replace(".", r"\.")} for name in layers},
        **{f"noise at step {s} of 20": {"noise_step": s, "denoise_steps": (s,)} for s in (0, 1, 2, 4, 8, 12)},
        "self-attention, once": {"propagate": 1},
        "self-attention, twice": {"propagate": 2},
    }
    generators: dict[str, ProposalKind] = {
        "Felzenszwalb": "felzenszwalb",
        "clusters of self-attention": "self-attention",
    }
    return [
        *(Row("variants, all styles", v, v, "hit", toy()) for v in ("full", "ds", "gs", "g")),
        Row("variants, all styles", "ds, constants of its own", "ds", "hit", toy(**own)),
        *(Row("what came after, all styles", v, v, "hit", toy()) for v in ("full", *SUCCESSORS)),
        *(
            Row("constants, full, all styles", name, "full", "hit", config)
            for name, config in (
                ("toy", toy()),
                ("paper", RefDiffConfig.paper()),
                ("official", RefDiffConfig.official(min_area=0)),  # its 10,000 pixels are two thirds of a toy scene
            )
        ),
        *(Row("positional bias, full, all styles", n, "full", "hit", toy(positional_bias=b)) for n, b in ranking.items()),
        *(Row("attention, gs, noun", n, "gs", "hit", toy(**c)) for n, c in attention.items()),
        *(Row("attention, g by Otsu, noun, mIoU", n, "g", "iou", toy(**c)) for n, c in attention.items()),
        Row("attention, g by Otsu, noun, mIoU", "threshold by S_G (paper)", "g", "iou", toy(weak_choice="score")),
        *(
            Row(f"proposals, {METRICS[metric]}, {of}all styles", name, "full", metric, toy(), kind)
            for metric, of in (("recall", ""), ("iou", "full, "), ("hit", "full, "))
            for name, kind in generators.items()
        ),
    ]  # fmt: skip


AFTER_THE_PASS = ("layers", "propagate", "weak_choice", "positional_bias")
Ask = Callable[[tuple[str, ...]], list[dict[Kind, AttentionMaps]]]


class SharedPasses(RefDiff):
    """Reads the attention of toy's own pass from ``ask``, where the config differs only in what is made of that pass."""

    def __init__(self, nets: Networks, config: RefDiffConfig, ask: Ask) -> None:
        super().__init__(nets, config)
        toy = RefDiffConfig.toy()
        same = config.replace(**{f: getattr(toy, f) for f in AFTER_THE_PASS}) == toy
        self.ask = ask if same else None

    def set_image(self, image: Any, *, oracle: np.ndarray | None = None) -> Scene:
        return _Scene(self, image, oracle)


class _Scene(Scene):
    model: SharedPasses

    def unet_pass(self, prompts: list[str], kinds: Sequence[Kind] = ("cross",)) -> list[dict[Kind, AttentionMaps]]:
        if self.model.ask is None:
            return super().unet_pass(prompts, kinds)
        pattern = self.model.networks.layers if self.config.layers is None else self.config.layers
        wanted = {"cross": pattern, "self": self.model.networks.self_layers}

        def chosen(maps: AttentionMaps) -> AttentionMaps:
            return replace(maps, maps={n: m for n, m in maps.maps.items() if re.search(wanted[maps.kind], n)})

        return [{kind: chosen(found[kind]) for kind in kinds} for found in self.model.ask(tuple(prompts))]


def outcomes(nets: Networks, jobs: dict[Job, list[Variant]], samples: list[Sample]) -> dict[Job, list[dict[str, Any]]]:
    """Per job one row per expression and variant, image by image (g has its own proposals)."""
    found: dict[Job, list[dict[str, Any]]] = {job: [] for job in jobs}
    every = RefDiff(nets, RefDiffConfig.toy(layers=""))
    for sample in tqdm(samples, "ablation", mininterval=5):
        nouns = replace(sample, records=tuple(r for r in sample.records if r.style == "noun"))
        ask = cache(partial(_all_maps, every.set_image(sample.image())))
        for job, variants in jobs.items():
            model = SharedPasses(nets, job.config, ask)
            found[job] += evaluate_scene(model, nouns if job.nouns else sample, variants, job.proposals)
    return found


def _all_maps(scene: Scene, prompts: tuple[str, ...]) -> list[dict[Kind, AttentionMaps]]:
    return scene.unet_pass(list(prompts), ("cross", "self"))


def summary(values: list[float], base: list[float], images: list[int]) -> dict[str, Any]:
    """Mean with its interval, and the paired difference to the group's first row (``base`` itself: none) with its own."""
    change = np.subtract(values, base)
    same = (0.0, 0.0) if values is base else interval(change.tolist(), images, bounds=(-1, 1))
    return {
        "value": round(float(np.mean(values)), 4),
        "interval": [round(x, 4) for x in interval(values, images)],
        "change": round(float(change.mean()), 4),
        "change_interval": [round(x, 4) for x in same],
        "n": len(values),
    }


def tables(report: dict[str, dict[str, Any]]) -> str:
    """All groups as Markdown tables in percent."""
    text = ""
    for group, table in report.items():
        text += f"\n{group} (n = {next(iter(table.values()))['n']})\n\n| | percent | change |\n|---|---|---|\n"
        for name, s in table.items():
            shown = [
                [f"{100 * x:.1f}" for x in (s[k], *s[i])]
                for k, i in (("value", "interval"), ("change", "change_interval"))
            ]
            text += f"| {name} | {' | '.join(f'{v} ({low} – {high})' for v, low, high in shown)} |\n"
    return text


def figure(report: dict[str, dict[str, Any]], path: Path) -> None:
    """One panel per group: every row as a dot with its interval, the row compared with as a line."""
    sizes = [len(lines) for lines in report.values()]
    fig, axes = plt.subplots(len(report), 1, figsize=(7.5, 1.1 * len(sizes) + 0.24 * sum(sizes)), layout="constrained",
                             height_ratios=[n + 1.2 for n in sizes])  # fmt: skip
    for ax, (group, lines) in zip(np.atleast_1d(axes), report.items(), strict=True):
        for y, row in enumerate(lines.values()):
            low, high = row["interval"]
            ax.plot([100 * low, 100 * high], [y, y], color="#0072B2", lw=2)
            ax.plot(100 * row["value"], y, "o", color="#0072B2", ms=5)
        ax.axvline(100 * next(iter(lines.values()))["value"], color="0.6", lw=0.8, zorder=0)
        ax.set(yticks=range(len(lines)), ylim=(len(lines) - 0.4, -0.6), title=group)
        ax.set_yticklabels(list(lines), fontsize=8)
        ax.set_xlabel("percent", fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    write_whole(path, lambda p: fig.savefig(p, dpi=110, format="png"))
    plt.close(fig)


def main(
    limit: Annotated[int | None, typer.Option(help="Only the first test images.")] = None,
    out: Annotated[Path, typer.Option(help="Where ablation.json, .md and .png go.")] = Path("data/models/toy"),
) -> None:
    """Run every line, write ablation.json, its tables and a figure."""
    check_folder(out)
    nets = load("toy")
    lines = rows(list(cross_attention_modules(nets.sd.unet)))
    jobs: dict[Job, list[Variant]] = {}
    for row in lines:
        wanted = jobs.setdefault(row.job, [])
        wanted += [row.variant] if row.variant not in wanted else []
    found = outcomes(nets, jobs, load_toyref("test", limit=limit))
    report: dict[str, dict[str, Any]] = {}
    first: dict[str, list[float]] = {}
    for row in lines:
        mine = [r for r in found[row.job] if r["variant"] == row.variant]
        values = [float(r.get(row.metric, 0)) for r in mine]
        base = first.setdefault(row.group, values)
        report.setdefault(row.group, {})[row.name] = summary(values, base, [r["image_id"] for r in mine])
    write_text(out / "ablation.json", json.dumps({"seed": RefDiffConfig.toy().seed, "groups": report}, indent=1) + "\n")
    figure(report, out / "ablation.png")
    write_text(out / "ablation.md", "# The ablation, as `make ablation` writes it\n" + tables(report))
    typer.echo(tables(report))


if __name__ == "__main__":
    typer.run(main)
