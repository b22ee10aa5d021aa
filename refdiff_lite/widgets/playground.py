"""Type a sentence, turn every knob, and see which proposal wins and why (lessons 5 to 7)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from PIL import Image

from .. import variants
from ..config import PROPOSALS, SUCCESSORS, VARIANTS, ProposalKind
from ..expression import Expression, parse
from ..masks import resize_nearest
from ..scene import Scene
from ..viz import show_image, show_map, show_mask
from .answers import DIRECTIONS, SIDE, Answer, answer, clip_sees, frames, score
from .base import DATA_BYTES, Explorer, pack, picture, view_module

REMEMBERED = 24
"""Sentences that are kept with all their masks; an older one is computed again when it is asked again."""


class SegmentationPlayground(Explorer):
    """Type any sentence about an image; every knob answers at once, only a new sentence calls the networks.

    Click a word to make it the head, a direction to switch it on or off, a row of the ranking to see its mask.

    Attributes:
        current: index of the sentence shown among those asked.
        variant, proposals, alpha, beta, bias: as in :func:`score` and :meth:`Scene.segment`; a successor ("refam", ...) has
            constants of its own, and the knobs do not move it.
        threshold: for weak proposals, 1 to 19 takes that one (in steps of 5 %), 0 lets the score choose.
        picked: a proposal to look at beside the winner, or -1; another sentence or generator lets it go.
        show_what: "mask" or "map".
    """

    _esm = view_module("ask", "keep", "proposal", "playground")
    current = traitlets.Int(0).tag(sync=True)
    variant = traitlets.Enum(VARIANTS, "full").tag(sync=True)
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
    _shown: tuple[int, str] = (0, "felzenszwalb")

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
        self._scored: dict[tuple[Expression, str, str], variants.Scored] = {}
        self.truth = {" ".join(k.split()): v for k, v in (truth or {}).items()}
        self.kinds = tuple(kinds or (*(("oracle",) if scene.oracle is not None else ()), "felzenszwalb", "weak"))
        parsed = [parse(s) for s in sentences]
        if not parsed:
            raise ValueError('give at least one sentence, such as "the small cat on the left"')
        super().__init__()
        self.on_msg(self._given_a_picture)
        self._fit()
        self.answers = [self._answer(e) for e in parsed]
        self._publish()
        start = {
            "proposals": next(k for k in (*self.kinds, "weak") if k != "oracle" or self.kinds == ("oracle",)),
            "alpha": config.weight_g / ((config.weight_g + config.weight_d) or 1),
            "beta": config.beta,
        }
        self.choose(**{**start, **choices})

    def _fit(self) -> None:
        height, width = (max(1, round(n * min(1, SIDE / max(self.scene.size)))) for n in self.scene.size)
        self.size = (height, width)
        self._image = picture(self.scene.image)

    def choose(self, **choices: Any) -> None:
        if "picked" in choices:  # last, for the others let it go
            choices["picked"] = choices.pop("picked")
        super().choose(**choices)

    @traitlets.observe("current", "proposals", "variant")
    def _other_proposals(self, _: Any) -> None:
        """What was picked is one of the proposals shown until now."""
        now = (self.current, self.kind)
        if now != self._shown:
            self._shown = now
            self.picked = -1

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
            "successors": list(SUCCESSORS),
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
            large = len(self._block) * (1 + 1 / (len(self.answers) - 1)) > DATA_BYTES
            if len(self.answers) > REMEMBERED or (large and len(self.answers) > 2):
                del self.answers[0]
        with self.hold_sync():  # a view never sees the new sentences with the old choice
            if expression not in known:
                self._publish()
            self.picked = -1
            self.current = [a.expression for a in self.answers].index(expression)
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

    def _given_a_picture(self, _: Any, content: Any, buffers: Any) -> None:
        """A view was given a picture of the reader's own."""
        if not isinstance(content, dict) or "picture" not in content or not buffers:
            return
        self._error, self._busy = "", True
        try:
            self.set_image(Image.open(io.BytesIO(bytes(buffers[0]))))
        except (OSError, ValueError) as error:
            self._error = f"{content['picture']} cannot be shown: {error}"
        finally:
            self._busy = False

    def set_image(self, image: Any) -> None:
        """Ask the current sentence of another picture, whatever :meth:`RefDiff.set_image` takes; its truth is not known."""
        expression = self.answers[self.current].expression
        kinds = tuple(k for k in self.kinds if k != "oracle") or ("felzenszwalb", "weak")
        scene = self.scene.model.set_image(image)
        found = answer(scene, expression, kinds)
        self.scene, self.kinds, self.truth, self.answers, self._scored = scene, kinds, {}, [found], {}
        self._fit()
        with self.hold_sync():
            self._publish()
            self.picked, self.current = -1, 0
            if self.proposals not in kinds:
                self.proposals = kinds[0]

    def _successor(self, asked: Answer, kind: str, variant: Any) -> variants.Scored:
        """What a successor makes of a generator's proposals, worked out when it is first looked at."""
        key = (asked.expression, kind, variant)
        if key not in self._scored:
            proposals = self.scene.proposals(kind, torch.from_numpy(asked.word_map))  # type: ignore[arg-type]
            self._scored[key] = variants.score(variant, self.scene, asked.expression, proposals)
        return self._scored[key]

    def answer(self, name: str) -> dict[str, np.ndarray]:
        """What views ask for.

        ``clip/sentence/generator/proposal/bias``: what CLIP sees of a proposal, two pictures as bytes of JPEG.
        ``variant/sentence/generator/name``: S_G, S_D and S of a successor, (3, N), and its map.
        """
        if name.startswith("variant/"):
            _, current, kind, variant = name.split("/")
            found = self._successor(self.answers[int(current)], kind, variant)
            c = np.round(resize_nearest(found.word_map.numpy(), self.size) * 255).astype(np.uint8)
            return {f"{name}/rows": torch.stack([found.s_g, found.s_d, found.s]).float().numpy(), f"{name}/map": c}
        what, current, kind, index, bias = name.split("/")
        if what != "clip":
            return super().answer(name)
        asked = self.answers[int(current)]
        cues = asked.expression.cues if bias == "1" else ()
        crop, masked = clip_sees(self.scene, asked.parts[kind].masks[int(index)], cues)
        return {f"{name}/crop": picture(crop), f"{name}/masked": picture(masked)}

    def kept(self) -> tuple[dict[str, Any], bytes]:
        """The page also keeps what CLIP sees of the winner and of what is picked, and the successor that is chosen."""
        shown = {i for i in (self.best, self.picked) if i is not None and 0 <= i < len(self.scores()["S"])}
        names = [f"clip/{self.current}/{self.kind}/{i}/{int(self.bias)}" for i in sorted(shown)]
        names += [f"variant/{self.current}/{self.kind}/{self.variant}"] if self.variant in SUCCESSORS else []
        arrays = {**self.arrays(), **{n: a for name in names for n, a in self.answer(name).items()}}
        index, block = pack(arrays)
        return {**self._meta, "index": index}, block

    @property
    def kind(self) -> str:
        """The proposals in use: variant g always takes thresholds of the map, where they are offered."""
        return "weak" if self.variant == "g" and "weak" in self.kinds else self.proposals

    def scores(self) -> dict[str, np.ndarray]:
        """S_G, S_D and S of every proposal under the knobs' present setting."""
        if self.variant in SUCCESSORS:
            found = self._successor(self.answers[self.current], self.kind, self.variant)
            return {"S_G": found.s_g.numpy(), "S_D": found.s_d.numpy(), "S": found.s.numpy()}
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
