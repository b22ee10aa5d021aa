"""One sentence's answer in parts, from which every setting of the knobs follows without any network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch.nn.functional import interpolate

from .. import fusion, ranking
from .. import proposals as generators
from ..config import Variant
from ..evaluation.metrics import iou
from ..expression import CUES, Expression, find_words, pieces, token_positions
from ..masks import resize_nearest
from ..networks import clip
from ..proposals import Proposals
from ..scene import Scene
from .base import bits

SIDE = 256
"""Masks are drawn with at most this many pixels a side; scores come from the scene's own size."""
DIRECTIONS = tuple(dict.fromkeys(CUES.values()))


@dataclass(frozen=True)
class Parts:
    """What the masks of one generator score for one sentence, before anything is weighed.

    Attributes:
        masks: (N, H, W) bool, none empty.
        s_g: S_G, (N,). otsu: between-class variance of the word's map, (N,).
        crop, masked: S_D of CLIP's two branches, (2, N): without and with the positional bias.
        iou: with the true mask, (N,), or None where it is not known.
    """

    masks: np.ndarray
    s_g: np.ndarray
    otsu: np.ndarray
    crop: np.ndarray
    masked: np.ndarray
    iou: np.ndarray | None


@dataclass(frozen=True)
class Answer:
    """One sentence and all its parts; :func:`score` turns them into a ranking without any network."""

    expression: Expression
    words: tuple[tuple[str, tuple[str, ...]], ...]
    """Each word with the pieces that the tokenizer makes of it."""
    word_map: np.ndarray
    parts: dict[str, Parts]


def answer(scene: Scene, expression: Expression, kinds: Sequence[str], truth: np.ndarray | None = None) -> Answer:
    """Call the networks once: the word's map, every generator's masks, their features with and without the bias."""
    nets, config = scene.model.networks, scene.config
    c, text = scene.word_map(expression), scene.text_features(expression)
    parts = {}
    for kind in kinds:
        proposals = scene.proposals(kind, c)  # type: ignore[arg-type]

        def scores(branch: ranking.Branch, share: float, proposals: Proposals = proposals) -> np.ndarray:
            if not len(proposals):
                return np.zeros((2, 0), np.float32)
            both = [ranking.visual_features(nets, proposals, branch, cues, config) for cues in ((), expression.cues)]
            return np.stack([ranking.branch_score(f, text, share).numpy() for f in both])

        masks = proposals.masks
        parts[kind] = Parts(
            masks.numpy(),
            fusion.generative_score(c, masks).numpy(),
            generators.otsu_choice(c, masks).numpy(),
            scores("crop", config.noun_in_crop),
            scores("masked", config.noun_in_masked),
            None if truth is None else np.array([iou(scene.to_full(m), truth) for m in masks]),
        )
    tokens = pieces(nets.tokenizer, expression.text)
    words = []
    for word in find_words(expression.text):
        try:
            places = token_positions(nets.tokenizer, expression.text, word.span())
        except ValueError:  # behind the last token that the text encoder reads
            places = []
        words.append((word.group(), tuple(tokens[i] for i in places)))
    return Answer(expression, tuple(words), c.numpy(), parts)


def score(
    parts: Parts, variant: Variant, alpha: float, beta: float, bias: bool, otsu: bool = False
) -> dict[str, np.ndarray]:
    """S_G, S_D and S of every proposal, each (N,): the paper's sums for one setting of the knobs.

    Args:
        alpha: weight of S_G in S. beta: weight of the masked branch in S_D. bias: the positional bias of the cues.
        otsu: variant g chooses by Otsu's criterion instead of S_G.
    """
    s_g, crop, masked, between = map(torch.from_numpy, (parts.s_g, parts.crop, parts.masked, parts.otsu))
    s_d = ranking.discriminative_score(crop[int(bias)], masked[int(bias)], beta)
    s = fusion.score(variant, s_g, s_d, alpha, 1 - alpha, between if otsu else None)
    return {"S_G": parts.s_g, "S_D": s_d.numpy(), "S": s.numpy()}


def frames(answers: Sequence[Answer], size: tuple[int, int], otsu: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What the view draws from: a description and arrays of every sentence asked; masks of the image come once.

    Weak proposals travel as the number of thresholds that each pixel passes, which is exact and one byte a pixel.
    """
    entries, arrays = [], {}
    for i, a in enumerate(answers):
        words = find_words(a.expression.text)
        entry: dict[str, Any] = {
            "text": a.expression.text,
            "words": [{"text": w, "pieces": list(p)} for w, p in a.words],
            "head": [w.span() for w in words].index(a.expression.span),
            "cues": list(a.expression.cues),
            "otsu": otsu,
            "truth": any(p.iou is not None for p in a.parts.values()),
        }
        arrays[f"{i}/map"] = np.round(resize_nearest(a.word_map, size) * 255).astype(np.uint8)
        for kind, p in a.parts.items():
            if kind == "weak":
                arrays[f"{i}/levels"] = resize_nearest(p.masks.sum(0, dtype=np.uint8), size)
            elif f"masks/{kind}" not in arrays:
                arrays[f"masks/{kind}"] = bits(resize_nearest(p.masks, size))
            known = np.full(len(p.s_g), -1.0) if p.iou is None else p.iou
            rows = [p.s_g, p.otsu, *p.crop, *p.masked, known]
            arrays[f"{i}/{kind}"] = np.stack(rows).astype(np.float32)
        entries.append(entry)
    return entries, arrays


def clip_sees(scene: Scene, mask: np.ndarray, cues: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A proposal as CLIP's two branches get it, each (h, w, 3) uint8: the crop, and the image with P and foreign patches dim.

    Args:
        mask: (H, W) bool at the working size, not empty. cues: directions whose ramp is switched on.
    """
    config, visual = scene.config, scene.model.networks.use("clip").visual
    masks = torch.from_numpy(mask)[None]

    def pixels(branch: ranking.Branch) -> torch.Tensor:
        return ranking.biased(scene.image, ranking.used_cues(branch, cues, config), config.ramp)

    crop = ranking.crops(pixels("crop"), masks, visual.image_size[0], config.crop_resize)[0]
    frame = ranking.masked_frame(visual, scene.size, config)
    whole = interpolate(pixels("masked")[None], frame, mode="bicubic", antialias=True, align_corners=False)[0]
    grid = (frame[0] // visual.patch_size[0], frame[1] // visual.patch_size[1])
    seen = clip.patches_of(masks, grid, config.masked_patches).view(1, 1, *grid).float()
    seen = interpolate(seen, frame, mode="nearest")[0]
    dimmed = whole.clamp(0, 1) * (0.2 + 0.8 * seen)
    crop, masked = (rearrange((x * 255).round().byte(), "rgb h w -> h w rgb").numpy() for x in (crop, dimmed))
    return crop, masked
