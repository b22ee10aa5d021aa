"""Type a sentence, turn every knob, and see which proposal wins and why (lessons 5 to 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from .. import fusion, ranking
from .. import proposals as generators
from ..config import PAPER_VARIANTS, PROPOSALS, ProposalKind, Variant
from ..evaluation.metrics import iou
from ..expression import CUES, Expression, find_words, parse, pieces, token_positions
from ..masks import resize_nearest
from ..proposals import Proposals
from ..scene import Scene
from ..viz import show_image, show_map, show_mask
from .base import DATA_BYTES, Explorer, bits, picture, view_module

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


class SegmentationPlayground(Explorer):
    """Type any sentence about an image; every knob answers at once, only a new sentence calls the networks.

    Click a word to make it the head, a direction to switch it on or off, a row of the ranking to see its mask.

    Attributes:
        current: index of the sentence shown among those asked.
        variant, proposals, alpha, beta, bias: as in :func:`score` and :meth:`Scene.segment`.
        threshold: for weak proposals, 1 to 19 takes that one (in steps of 5 %), 0 lets the score choose.
        picked: a proposal to look at instead of the winner, or -1. show: "mask" or "map".
    """

    _esm = view_module("playground")
    current = traitlets.Int(0).tag(sync=True)
    variant = traitlets.Enum(PAPER_VARIANTS, "full").tag(sync=True)
    proposals = traitlets.Enum(PROPOSALS, "felzenszwalb").tag(sync=True)
    alpha = traitlets.Float(0.1, min=0, max=1).tag(sync=True)
    beta = traitlets.Float(0.3, min=0, max=1).tag(sync=True)
    bias = traitlets.Bool(True).tag(sync=True)
    threshold = traitlets.Int(0, min=0).tag(sync=True)
    picked = traitlets.Int(-1).tag(sync=True)
    show_what = traitlets.Enum(("mask", "map"), "mask").tag(sync=True)
    _busy = traitlets.Bool(False).tag(sync=True)
    _error = traitlets.Unicode().tag(sync=True)
    _request = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        scene: Scene,
        *sentences: str,
        truth: Mapping[str, np.ndarray] | None = None,
        kinds: Sequence[ProposalKind] | None = None,
        **choices: Any,
    ) -> None:
        """Ask these sentences at once; more can be typed.

        Args:
            truth: true mask (H, W) bool by sentence, where it is known; gives every proposal its IoU.
            kinds: generators to offer (default: those that need no further network, and "oracle" where it is given).
            choices: traits to start with, such as ``variant="gs"``.
        """
        config = scene.config
        self.scene, self.answers = scene, []  # type: ignore[var-annotated]
        self.truth = {" ".join(k.split()): v for k, v in (truth or {}).items()}
        self.kinds = tuple(kinds or (*(("oracle",) if scene.oracle is not None else ()), "felzenszwalb", "weak"))
        parsed = [parse(s) for s in sentences]
        if not parsed:
            raise ValueError('give at least one sentence, such as "the small cat on the left"')
        super().__init__()
        height, width = (max(1, round(n * min(1, SIDE / max(scene.size)))) for n in scene.size)
        self.size = (height, width)
        self._image = picture(scene.image)
        self.answers = [self._answer(e) for e in parsed]
        self._publish()
        start = {
            "proposals": next(k for k in (*self.kinds, "weak") if k != "oracle" or self.kinds == ("oracle",)),
            "alpha": config.weight_g / ((config.weight_g + config.weight_d) or 1),
            "beta": config.beta,
        }
        self.choose(**{**start, **choices})

    def _answer(self, expression: Expression) -> Answer:
        return answer(self.scene, expression, self.kinds, self.truth.get(expression.text))

    def _publish(self) -> None:
        entries, arrays = frames(self.answers, self.size, self.scene.config.weak_choice == "otsu")
        meta = {
            "title": "Which mask does a sentence mean?",
            "size": list(self.size),
            "entries": entries,
            "kinds": list(self.kinds),
            "directions": list(DIRECTIONS),
            "thresholds": self.scene.config.thresholds,
        }
        self.show(meta, {"image": self._image, **arrays})

    def ask(self, sentence: str, head: str | None = None, cues: Sequence[str] | None = None) -> Answer:
        """Show a sentence, from memory where it was asked before.

        Args:
            head: the word to look for, where the rule's choice is wrong. cues: directions instead of those found.

        Raises:
            ValueError: the sentence cannot be parsed, or its head lies behind the text encoder's last token.
        """
        expression = parse(sentence, head)
        if cues is not None:
            if unknown := set(cues) - set(DIRECTIONS):
                raise ValueError(f"unknown cues {sorted(unknown)}: choose among {', '.join(DIRECTIONS)}")
            expression = replace(expression, cues=tuple(d for d in DIRECTIONS if d in cues))
        known = [a.expression for a in self.answers]
        if expression not in known:
            self._busy = True
            try:
                self.answers.append(self._answer(expression))
            finally:
                self._busy = False
            if len(self.answers) > 2 and len(self._block) * (1 + 1 / (len(self.answers) - 1)) > DATA_BYTES:
                del self.answers[0]
            self._publish()
            known = [a.expression for a in self.answers]
        with self.hold_sync():
            self.picked = -1
            self.current = known.index(expression)
        return self.answers[self.current]

    @traitlets.observe("_request")
    def _asked(self, change: Any) -> None:
        """A view asks for a sentence, a head or cues; what was wrong goes back in words."""
        request = change["new"]
        if not request:
            return
        self._error = ""
        try:
            self.ask(request["sentence"], request.get("head"), request.get("cues"))
        except ValueError as error:
            self._error = str(error)

    @property
    def kind(self) -> str:
        """The proposals in use: variant g always takes thresholds of the map, where they are offered."""
        return "weak" if self.variant == "g" and "weak" in self.kinds else self.proposals

    def scores(self) -> dict[str, np.ndarray]:
        """S_G, S_D and S of every proposal under the knobs' present setting."""
        otsu = self.scene.config.weak_choice == "otsu"
        parts = self.answers[self.current].parts[self.kind]
        return score(parts, self.variant, self.alpha, self.beta, self.bias, otsu)

    @property
    def best(self) -> int | None:
        """The proposal that wins (or that the threshold names); None if there is none."""
        s = self.scores()["S"]
        if not len(s):
            return None
        return min(self.threshold, len(s)) - 1 if self.kind == "weak" and self.threshold else int(s.argmax())

    @property
    def mask(self) -> np.ndarray:
        """The mask shown, (H, W) bool at the scene's size."""
        masks = self.answers[self.current].parts[self.kind].masks
        index = self.picked if 0 <= self.picked < len(masks) else self.best
        return np.zeros(self.scene.size, bool) if index is None else masks[index]

    def figure(self) -> Figure:
        asked = self.answers[self.current]
        figure = Figure(figsize=(9, 3.4), dpi=90, layout="constrained")
        axes = figure.subplots(1, 3)
        show_image(self.scene.image, axes[0], "image")
        show_map(asked.word_map, self.scene.image, axes[1], f'map of "{asked.expression.head}"')
        show_mask(self.mask, self.scene.image, axes[2], f"{self.variant}, {self.kind}")
        figure.suptitle(asked.expression.text, fontsize=11, parse_math=False)
        return figure

    def __repr__(self) -> str:
        text = self.answers[self.current].expression.text
        return f"SegmentationPlayground({text!r}, {self.variant}, {self.kind}, best {self.best})"
