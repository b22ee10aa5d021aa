"""What an expression led to: the mask, and every intermediate that explains it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from .compat import versions
from .expression import Expression

if TYPE_CHECKING:
    from .pipeline import Scene


@dataclass
class Result:
    """What an expression led to, with every intermediate that explains it.

    Attributes:
        mask: (H, W) bool at the input's size; empty if there was no proposal.
        scores: "S_G", "S_D", "S", each (N,) float32, one number per proposal (S_D is 0 where CLIP was not asked).
        word_map: c, (h, w) float32 in [0, 1], at the working size. masks: (N, h, w) bool, the proposals.
        best: index of the chosen proposal, None if there was none.
    """

    mask: np.ndarray
    best: int | None
    scores: dict[str, torch.Tensor]
    word_map: np.ndarray
    masks: torch.Tensor
    expression: Expression
    tokens: list[int]
    variant: str
    proposals: str
    scene: Scene = field(repr=False)

    def __repr__(self) -> str:
        share = f"{self.mask.mean():.1%} of the image"
        return f"Result({self.expression.text!r} -> {share}, best {self.best} of {len(self.masks)} {self.proposals} proposals)"

    def plot(self, path: str | Path | None = None) -> Any:
        """The whole story in one figure: image, tokens, word map, best proposals with scores, mask."""
        from .viz import panel

        return panel(self, path)

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures, ready for JSON; the mask as COCO RLE."""
        rle = coco_mask.encode(np.asfortranarray(self.mask.astype(np.uint8)))
        order = self.scores["S"].argsort(descending=True).tolist()
        return {
            "expression": self.expression.text,
            "head": self.expression.head,
            "cues": list(self.expression.cues),
            "variant": self.variant,
            "proposals": self.proposals,
            "n_proposals": len(self.masks),
            "best": self.best,
            "ranking": [{"proposal": i} | {k: round(float(v[i]), 6) for k, v in self.scores.items()} for i in order],
            "area": round(float(self.mask.mean()), 6),
            "rle": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
            "preset": self.scene.model.backbones.name,
            "config": self.scene.config.to_dict(),
            "versions": versions(),
        }
