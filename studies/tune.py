"""Choose the toy preset's constants on ToyRef val: ``python -m studies.tune`` (``make tune``).

Scores, layers and noise level are chosen by GS accuracy plus G's mIoU (Otsu's choice) on nouns, then the weights of the full score by accuracy over all
styles, both with true masks as proposals. Test is never looked at. ``RefDiffConfig.toy()`` holds the outcome. What suits
CLIP alone is chosen too, so that fusion can be compared with ds at its best.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tqdm.auto import tqdm

from refdiff_lite import fusion, ranking
from refdiff_lite.attention import AttentionMaps, word_map
from refdiff_lite.config import RefDiffConfig
from refdiff_lite.datasets import Sample
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.expression import Expression, parse, token_positions
from refdiff_lite.files import write_text
from refdiff_lite.networks import load
from refdiff_lite.pipeline import RefDiff
from refdiff_lite.proposals import otsu_choice, weak
from refdiff_lite.scene import Scene

STEPS = (1, 2, 4)
BIASES = ("none", "masked", "crop", "both")
ALPHAS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""alpha = 0 is measured but never chosen: full would be ds."""
BETAS = (0.0, 0.3, 0.5, 0.7, 1.0)
NOUN_SHARES = (0.0, 0.5, 0.75)


def layer_sets(names: list[str]) -> dict[str, str]:
    """Name -> regular expression: every layer alone, each half of the UNet, and all."""
    return {"all": "", "down": "down", "up": "up", "no 16×16": r"up_blocks\.0|down_blocks\.1|mid"} | {
        n: n.replace(".", r"\.") for n in names
    }


def _subset(maps: AttentionMaps, names: list[str]) -> AttentionMaps:
    return AttentionMaps(maps.kind, maps.scores, {n: maps.maps[n] for n in names}, maps.calls)


def generative_rows(model: RefDiff, samples: list[Sample]) -> list[dict[str, Any]]:
    """For every noun of val: was GS right, and the IoU of G by both rules, per (scores, step, layers)."""
    rows = []
    settings = list(itertools.product(("softmax", "logits"), STEPS))
    for scores, step in tqdm(settings, "layers and noise", mininterval=5):
        config = RefDiffConfig.toy(scores=scores, layers="", noise_step=step, denoise_steps=(step,))
        for sample in samples:
            scene = RefDiff(model.networks, config).set_image(sample.path, oracle=sample.masks)
            truth = torch.from_numpy(sample.masks)
            for record in sample.records:
                parsed = parse(record.text)
                tokens = token_positions(model.networks.tokenizer, parsed.text, parsed.span)
                maps = scene.unet_pass([parsed.text])[0]["cross"]
                for name, pattern in layer_sets(list(maps.maps)).items():
                    chosen = [n for n in maps.maps if re.search(pattern, n)]
                    c = word_map(_subset(maps, chosen), tokens, scene.size)
                    s_g, masks = fusion.generative_score(c, truth), weak(c)
                    fits = _ious(masks, truth[record.target])
                    rows.append({
                        "name": f"{scores}, step {step}, {name}",
                        "settings": {"scores": scores, "layers": pattern, "noise_step": step,
                                     "denoise_steps": (step,)},
                        "hit": int(s_g.argmax()) == record.target, "best": float(fits.max()),
                        "score": float(fits[fusion.generative_score(c, masks).argmax()]),
                        "otsu": float(fits[otsu_choice(c, masks).argmax()]),
                    })  # fmt: skip
    return rows


def _ious(masks: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return (masks & truth).flatten(1).sum(1) / (masks | truth).flatten(1).sum(1).clamp_min(1)


def ranking_rows(model: RefDiff, samples: list[Sample], config: RefDiffConfig) -> list[dict[str, Any]]:
    """For every expression: S_G, and both branches' scores for sentence and noun, with and without the bias."""
    rows = []
    nets = model.networks
    for sample in tqdm(samples, "scores", mininterval=5):
        scenes = {
            bias: RefDiff(nets, config.replace(positional_bias=bias)).set_image(sample.path, oracle=sample.masks)
            for bias in ("none", "both")
        }
        masks = scenes["none"].proposals("oracle").masks  # sorted by size: not the order of sample.masks
        for record in sample.records:
            parsed = parse(record.text)
            s_g = scenes["none"].segment(record.text, "gs", "oracle").scores["S_G"]
            text = scenes["none"].text_features(parsed)
            parts = {
                (branch, bias): torch.stack([ranking.branch_score(features, text, share) for share in (0, 1)], 1)
                for bias, scene in scenes.items()
                for branch, features in _features(scene, parsed)
            }
            target = int(_ious(masks, torch.from_numpy(sample.masks[record.target])).argmax())
            rows.append({"s_g": s_g, "parts": parts, "target": target, "style": record.style})
    return rows


def _features(scene: Scene, parsed: Expression) -> Iterator[tuple[str, torch.Tensor]]:
    """Of both branches CLIP's features of the true masks."""
    branches: tuple[ranking.Branch, ...] = ("crop", "masked")
    for branch in branches:
        yield (
            branch,
            ranking.visual_features(scene.model.networks, scene.proposals("oracle"), branch, parsed.cues, scene.config),
        )


def accuracy(
    rows: list[dict], bias: str, alpha: float, beta: float, noun_crop: float, noun_masked: float
) -> dict[str, float]:
    """Accuracy of the full score per style for one choice of constants."""
    crop_bias, masked_bias = ("both" if bias in (b, "both") else "none" for b in ("crop", "masked"))
    found: dict[str, list[bool]] = {}
    for row in rows:
        crop, masked = row["parts"]["crop", crop_bias], row["parts"]["masked", masked_bias]
        crop, masked = (
            (1 - share) * x[:, 0] + share * x[:, 1] for x, share in ((crop, noun_crop), (masked, noun_masked))
        )
        s_d = ranking.discriminative_score(crop, masked, beta)
        s = fusion.fuse(row["s_g"], s_d, alpha, 1 - alpha)
        found.setdefault(row["style"], []).append(int(s.argmax()) == row["target"])
    return {style: float(np.mean(hits)) for style, hits in found.items()}


def constants(choice: tuple[str, float, float, float, float]) -> dict[str, Any]:
    """One choice of the sweep as changes to the config."""
    bias, alpha, beta, noun_crop, noun_masked = choice
    return {
        "positional_bias": bias, "weight_g": alpha, "weight_d": round(1 - alpha, 2), "beta": beta,
        "noun_in_crop": noun_crop, "noun_in_masked": noun_masked,
    }  # fmt: skip


def main(
    limit: Annotated[int | None, typer.Option(help="Only the first val images.")] = None,
    out: Annotated[Path, typer.Option(help="Where the choice and the tables go.")] = Path("data/models/toy/tune.json"),
) -> None:
    """Sweep on val and write what was best."""
    model = RefDiff(load("toy"))
    cells: dict[str, dict] = {}
    samples = load_toyref("val", None, limit)
    for row in generative_rows(model, load_toyref("val", "noun", limit)):
        cell = cells.setdefault(row["name"], {"settings": row["settings"], "rows": []})
        cell["rows"].append([row["hit"], row["score"], row["otsu"], row["best"]])
    for cell in cells.values():
        means = np.mean(cell.pop("rows"), axis=0).round(4).tolist()
        cell |= dict(zip(("gs_accuracy", "g_miou_score", "g_miou_otsu", "g_miou_best"), means, strict=True))
    ranked = sorted(cells.items(), key=lambda kv: -(kv[1]["gs_accuracy"] + kv[1]["g_miou_otsu"]))
    settings = ranked[0][1]["settings"]
    config = RefDiffConfig.toy(**settings)
    rows = ranking_rows(model, samples, config)
    sweep = {
        choice: accuracy(rows, *choice) for choice in itertools.product(BIASES, ALPHAS, BETAS, NOUN_SHARES, NOUN_SHARES)
    }

    def best(choices: Iterable[tuple]) -> tuple:
        return max(choices, key=lambda c: round(float(np.mean(list(sweep[c].values()))), 4))

    choice, alone = best(c for c in sweep if c[1] > 0), best(c for c in sweep if c[1] == 0)
    bias, alpha, beta, noun_crop, noun_masked = choice
    along = {f"alpha {a}": sweep[(bias, a, beta, noun_crop, noun_masked)] for a in ALPHAS}
    along |= {f"beta {b}": sweep[(bias, alpha, b, noun_crop, noun_masked)] for b in BETAS}
    along |= {f"bias {b}": sweep[(b, alpha, beta, noun_crop, noun_masked)] for b in BIASES}
    report = {
        "images": len(samples),
        "chosen": settings | constants(choice),
        "full": sweep[choice],
        "chosen for ds": constants(alone),
        "ds": sweep[alone],
        "along": along,
        "attention": dict(ranked),
    }
    write_text(out, json.dumps(report, indent=1) + "\n")
    typer.echo(json.dumps({k: report[k] for k in ("chosen", "full", "chosen for ds", "ds", "along")}, indent=1))
    for name, cell in ranked[:8]:
        typer.echo(f"{name}: {cell}")


if __name__ == "__main__":
    typer.run(main)
