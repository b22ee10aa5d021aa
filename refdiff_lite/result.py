"""What an expression led to: the mask, and every intermediate that explains it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .config import RefDiffConfig, Variant
from .expression import Expression
from .files import write_whole
from .masks import to_rle
from .networks.compat import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(eq=False)
class Result:
    """What an expression led to, with every intermediate that explains it. It stands alone: no network hangs on it.

    Attributes:
        mask: (H, W) bool at the input's size; empty if there was no proposal.
        best: index of the chosen proposal, None if there was none.
        scores: "S_G", "S_D", "S", each (N,) float32, one number per proposal (S_D is 0 where CLIP was not asked).
        word_map: c, (h, w) float32 in [0, 1], at the working size.
        proposals: (N, h, w) bool, read-only: the masks that were ranked, largest first (weak ones by threshold).
        generator: where the proposals come from.
        image: (h, w, 3) uint8 RGB at the working size, read-only.
        pieces: the prompt's tokens as text. tokens: places among them of the head word's pieces.
        unread: the end of the expression that the text encoder does not read, "" if it reads all.
        config, preset: the constants and the name of the networks.
    """

    mask: np.ndarray
    best: int | None
    scores: dict[str, torch.Tensor]
    word_map: np.ndarray
    proposals: np.ndarray
    expression: Expression
    variant: Variant
    generator: str
    image: np.ndarray = field(repr=False)
    pieces: tuple[str, ...]
    tokens: tuple[int, ...]
    unread: str
    config: RefDiffConfig = field(repr=False)
    preset: str

    def __repr__(self) -> str:
        share = f"{self.mask.mean():.1%} of the image"
        found = f"best {self.best} of {len(self.proposals)} {self.generator} proposals"
        return f"Result({self.expression.text!r} -> {share}, {found})"

    def __eq__(self, other: object) -> bool:
        """Equal if all that :meth:`to_dict` says is equal: mask, scores to six digits, expression, config, versions."""
        return isinstance(other, Result) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # equal results need not be the same object, and arrays have no hash

    def plot(self, path: str | Path | None = None, best: int = 5, truth: np.ndarray | None = None) -> Figure:
        """The whole story in one figure: image, tokens, word map, mask, the best proposals with S_G, S_D and S.

        Args:
            path: where to write it as a picture, too. best: how many proposals.
            truth: (h, w) bool, the object that was meant, where it is known: its outline is drawn, and the proposal
                that fits it best is always among those shown, with its rank.

        Raises:
            ValueError: truth has another size than the working size.
        """
        from matplotlib.figure import Figure

        from . import viz

        image, scores, expression = self.image, self.scores, self.expression
        if truth is not None and truth.shape != image.shape[:2]:
            raise ValueError(f"truth is {truth.shape}; give a mask of the working size {image.shape[:2]}")
        figure = Figure(figsize=(12, 6.4), dpi=100, layout="constrained")
        grid = figure.add_gridspec(3, best * 3, height_ratios=[0.5, 3, 2.2])
        note = f"head word: {expression.head}   direction cues: {', '.join(expression.cues) or 'none'}"
        viz.show_tokens(self.pieces, self.tokens[-1], note, figure.add_subplot(grid[0, :]))
        thirds = [figure.add_subplot(grid[1, i * best : (i + 1) * best]) for i in range(3)]
        chosen = np.zeros(image.shape[:2], bool) if self.best is None else self.proposals[self.best]
        viz.show_image(image, thirds[0], "image")
        viz.show_map(self.word_map, image, thirds[1], f'word map c of "{expression.head}"')
        viz.show_mask(chosen, image, thirds[2], f"mask ({self.variant}, {self.generator})", truth)
        order = scores["S"].argsort(descending=True).tolist()
        right = None if truth is None else _closest(self.proposals, truth)
        shown = order[:best]
        if right is not None and right not in shown:
            shown[-1] = right
        for place, i in enumerate(shown):
            ax = figure.add_subplot(grid[2, place * 3 : place * 3 + 3])
            numbers = f"S {float(scores['S'][i]):+.3f}\nS_G {float(scores['S_G'][i]):+.3f}"
            if scores["S_D"].any():
                numbers += f"   S_D {float(scores['S_D'][i]):+.3f}"
            if i == right:
                numbers = f"closest to the truth, rank {order.index(i) + 1} of {len(order)}\n{numbers}"
            viz.show_mask(self.proposals[i], image, ax, numbers, truth)
            if i == right:
                ax.set_title(ax.get_title(), fontsize=9, color=viz.TRUTH)
            if place == 0:
                ax.set_title(ax.get_title(), fontsize=9, color=viz.CHOSEN, fontweight="bold")
        if not len(self.proposals):
            figure.add_subplot(grid[2, :]).set_axis_off()
            figure.text(0.5, 0.2, "no proposal was found", ha="center", color="#444444")
        figure.suptitle(f'"{textwrap.shorten(expression.text, 60)}"', fontsize=13, parse_math=False)
        if path is not None:
            write_whole(Path(path), figure.savefig)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures, ready for JSON; the mask as COCO RLE."""
        order = self.scores["S"].argsort(descending=True).tolist()
        return {
            "expression": self.expression.text,
            "head": self.expression.head,
            "cues": list(self.expression.cues),
            "doubt": self.expression.doubt,
            "unread": self.unread,
            "variant": self.variant,
            "generator": self.generator,
            "n_proposals": len(self.proposals),
            "best": self.best,
            "ranking": [{"proposal": i} | {k: round(float(v[i]), 6) for k, v in self.scores.items()} for i in order],
            "area": round(float(self.mask.mean()), 6),
            "rle": to_rle(self.mask),
            "preset": self.preset,
            "config": self.config.to_dict(),
            "versions": versions(),
        }


def _closest(masks: np.ndarray, truth: np.ndarray) -> int | None:
    """Index of the mask (N, h, w) with the highest IoU with the truth, None if none meets it."""
    shared = (masks & truth).sum((1, 2))
    return int((shared / (masks | truth).sum((1, 2)).clip(1)).argmax()) if shared.any() else None
