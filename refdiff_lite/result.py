"""What an expression led to: the mask, and every intermediate that explains it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .config import RefDiffConfig, Variant
from .expression import Expression
from .masks import to_rle
from .networks.compat import versions


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

    def plot(self, path: str | Path | None = None) -> Any:
        """The whole story in one figure: image, tokens, word map, best proposals with scores, mask."""
        from .viz import panel

        return panel(self, path)

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures, ready for JSON; the mask as COCO RLE."""
        order = self.scores["S"].argsort(descending=True).tolist()
        return {
            "expression": self.expression.text,
            "head": self.expression.head,
            "cues": list(self.expression.cues),
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
