"""What the three training scripts share: a cache of scenes, and one resumable loop.

Every step draws its batch from a generator seeded by (seed, step), so a run that was stopped and resumed
sees the same batches, and ends with the same weights, as one that was not.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from tqdm.auto import tqdm

from .muon import Muon
from .scenes import SIDE, Thing, make_scene

Loss = Callable[[torch.Generator, np.random.Generator], tuple[torch.Tensor, dict[str, float]]]
LOOKED_AT = 40
"""Val scenes that the logs judge a network by, with their masks; no training scene, and nothing learns from them."""

NO_MATRIX = ("_embedding.weight", "conv_out.weight", "dit.proj_out.weight")
"""Ends of the names of weights that Muon does not take."""


def _scene(job: tuple[str, int, int]) -> tuple[np.ndarray, str]:
    scene = make_scene(*job)
    return scene.image, json.dumps([asdict(t) for t in scene.things])


def load_scenes(cache: Path, split: str, count: int, side: int = SIDE) -> tuple[np.ndarray, list[tuple[Thing, ...]]]:
    """The first ``count`` scenes of a split, drawn once and kept in ``cache``.

    Returns:
        images (count, side, side, 3) uint8, memory-mapped, and the things of each. No masks: no trainer is given one
        (though half of the close-ups stand on black, cut along their outline).
    """
    stem = cache / f"{split}-{side}-{count}"
    if not stem.with_suffix(".jsonl").exists():
        cache.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(stem.with_suffix(".npy"), "w+", dtype=np.uint8, shape=(count, side, side, 3))
        jobs = ((split, i, side) for i in range(count))
        lines = []
        with get_context("spawn").Pool() as pool:
            drawn = pool.imap(_scene, jobs, chunksize=64)
            for i, (image, line) in enumerate(tqdm(drawn, f"drawing {split}", count, unit="scene")):
                images[i] = image
                lines.append(line)
        images.flush()
        partial = stem.with_suffix(".partial")
        partial.write_text("\n".join(lines) + "\n")
        os.replace(partial, stem.with_suffix(".jsonl"))  # last: marks the cache as whole
    lines = stem.with_suffix(".jsonl").read_text().splitlines()
    return np.load(stem.with_suffix(".npy"), mmap_mode="r"), [tuple(Thing(**t) for t in json.loads(x)) for x in lines]


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1], channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100, decay: float = 0.3) -> float:
    """Warm up, stay, then fall as a cosine to zero over the last ``decay`` of the run."""
    left = (steps - step) / max(1, decay * steps)
    return peak * min(1.0, (step + 1) / warmup) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, left)))


def _resume(
    checkpoint: Path,
    params: dict[str, torch.nn.Parameter],
    average: dict[str, torch.Tensor],
    optimizers: list[torch.optim.Optimizer],
) -> int:
    """Fill weights, averages and optimizers from a checkpoint; returns its step.

    Raises:
        ValueError: the file is damaged, or of another model or optimizer.
    """
    try:
        state = torch.load(checkpoint, weights_only=True)
        same = all(state[part].keys() == params.keys() for part in ("model", "average"))
        if not same or any(state["model"][k].shape != p.shape for k, p in params.items()):
            raise ValueError("its weights are not those of this model")
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        with torch.no_grad():
            for k, p in params.items():
                p.copy_(state["model"][k])
                average[k].copy_(state["average"][k])
        return int(state["step"])
    except (RuntimeError, ValueError, KeyError, TypeError, EOFError, OSError, UnpicklingError) as error:
        why = str(error).split("\n")[0][:200] or "no content"
        raise ValueError(
            f"{checkpoint} cannot be resumed ({why}): it is damaged, or another model's. "
            "Move it away to begin anew, or choose another folder"
        ) from error


def train(
    model: torch.nn.Module,
    loss: Loss,
    out: Path,
    *,
    steps: int,
    lr: float,
    stop_at: int | None = None,
    every: int = 100,
    warmup: int = 100,
    muon: float = 0.0,
    ema: float = 0.999,
    weight_decay: float = 0.01,
    seed: int = 0,
    report: Callable[[torch.nn.Module], dict[str, float]] | None = None,
) -> Iterator[int]:
    """Train in place, resuming from ``out/checkpoint.pt``; on return the model holds the averaged (EMA) weights.

    AdamW with the learning rate ``lr``; where ``muon`` is not 0, Muon with that rate for all weight matrices but
    embeddings and the last layer's (as its author advises), and AdamW for the rest.

    Yields the step count at each checkpoint, when the model holds the averaged weights, so that a caller can
    save snapshots. ``report(model)`` is measured then too and goes into ``out/log.jsonl``.
    """
    out.mkdir(parents=True, exist_ok=True)
    params = {k: p for k, p in model.named_parameters() if p.requires_grad}
    matrices = {k: p for k, p in params.items() if muon and p.ndim > 1 and not k.endswith(NO_MATRIX)}
    rest = [p for k, p in params.items() if k not in matrices]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    ]
    if matrices:
        optimizers.append(Muon(matrices.values(), lr=muon))
    average = {k: p.detach().clone() for k, p in params.items()}
    checkpoint = out / "checkpoint.pt"
    start = _resume(checkpoint, params, average, optimizers) if checkpoint.exists() else 0
    end = steps if stop_at is None else min(steps, stop_at)
    means: dict[str, float] = {}

    def swap() -> None:
        for k, p in params.items():
            p.data, average[k] = average[k], p.data

    model.train()
    bar = tqdm(range(start, end), out.name, initial=start, total=end, mininterval=10)
    for step in bar:
        for peak, optimizer in zip((lr, muon), optimizers, strict=False):
            optimizer.param_groups[0]["lr"] = learning_rate(step, steps, peak, warmup)
        value, extra = loss(
            torch.Generator().manual_seed(seed * 1_000_003 + step), np.random.default_rng([seed, step, 7])
        )
        model.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(params.values(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        keep = min(ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for k, p in params.items():
                average[k].lerp_(p, 1 - keep)
        for k, v in {"loss": value.item(), **extra}.items():
            means[k] = means.get(k, v) * 0.98 + v * 0.02
        bar.set_postfix({k: f"{v:.4g}" for k, v in means.items()}, refresh=False)
        if (step + 1) % every == 0 or step + 1 == end:
            state = {
                "step": step + 1,
                "model": dict(params),
                "average": average,
                "optimizers": [o.state_dict() for o in optimizers],
            }
            torch.save(state, out / "checkpoint.partial")
            os.replace(out / "checkpoint.partial", checkpoint)
            swap()
            model.eval()
            row = {"step": step + 1, **means, **(report(model) if report else {})}
            with open(out / "log.jsonl", "a") as log:
                log.write(json.dumps({k: round(v, 5) for k, v in row.items()}) + "\n")
            yield step + 1
            model.train()
            swap()
    with torch.no_grad():
        for k, p in params.items():
            p.copy_(average[k])
    model.eval()
