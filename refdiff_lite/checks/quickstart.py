"""Checks of lesson 0."""

import numpy as np
import torch

from ..evaluation import metrics
from . import Check, Guess

guess_changes = Guess("changes of the winner between alpha 0 and 1")


def _masks() -> list[tuple]:
    rng = np.random.default_rng(0)
    pairs = [(rng.random(size) > 0.5, rng.random(size) > 0.3) for size in ((6, 8), (5, 3))]
    pairs.append((np.eye(4, dtype=bool), np.ones((4, 4), bool)))
    return pairs + [(a.astype(np.uint8), b.astype(np.uint8)) for a, b in pairs]


def _iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return metrics.iou(mask > 0, truth > 0)


check_iou = Check(
    _iou,
    {
        "still wrong for 0 and 1 as integers: there + adds, so what both share counts twice in the union": (
            lambda mask, truth: float((mask * truth).sum() / (mask + truth).sum())
        ),
        "that is the share of the true mask that was found (recall): divide by the union instead": (
            lambda mask, truth: float((mask & truth).sum() / truth.sum())
        ),
        "that is the share of equal pixels: background that both leave out must not count": (
            lambda mask, truth: float((mask == truth).mean())
        ),
        "that is the intersection in pixels: divide it by the union": lambda mask, truth: float((mask & truth).sum()),
    },
    "IoU is right, whatever the masks are made of: 1 for the same mask, 0 for masks that do not meet",
    cases=_masks,
)

check_head = Check(
    {"head": "cup", "cues": ("right",)},
    {
        "the head is the thing that is named, not the thing that it stands near": {"head": "gift", "cues": ("right",)},
        '"left of the gift" places the cup against the gift: it is a relation, not a place in the picture': {
            "head": "cup",
            "cues": ("right", "left"),
        },
        "one of the two direction words is a cue: the one that is not followed by 'of'": {"head": "cup", "cues": ()},
    },
    "right: the head word is where attention is read, the cue tells CLIP where to look",
)


def _scores() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, generator=generator), torch.randn(n, generator=generator), alpha)
        for n, alpha in ((7, 0.0), (4, 0.3), (9, 0.6), (5, 1.0))
    ]


check_choose = Check(
    lambda s_g, s_d, alpha: int((alpha * s_g + (1 - alpha) * s_d).argmax()),
    {
        "alpha weighs S_G, and 1 - alpha weighs S_D: yours are exchanged": (
            lambda s_g, s_d, alpha: int((alpha * s_d + (1 - alpha) * s_g).argmax())
        ),
        "that is the worst proposal: take argmax": (
            lambda s_g, s_d, alpha: int((alpha * s_g + (1 - alpha) * s_d).argmin())
        ),
        "that is the best score; the index of its proposal is asked for": (
            lambda s_g, s_d, alpha: float((alpha * s_g + (1 - alpha) * s_d).max())
        ),
    },
    "that is Ref-Diff's last line: one weighted sum, one argmax",
    cases=_scores,
)


def turning_points(s_g: torch.Tensor, s_d: torch.Tensor) -> list[float]:
    """Crossings of two lines at which the highest of all lines changes, found among all crossings."""
    height, slope = s_d.double(), (s_g - s_d).double()
    crossings = {
        float((height[j] - height[i]) / (slope[i] - slope[j]))
        for i in range(len(slope))
        for j in range(i)
        if slope[i] != slope[j]
    }

    def best(alpha: float) -> int:
        return int((height + alpha * slope).argmax())

    return [a for a in sorted(crossings) if 0 < a < 1 and best(a - 1e-9) != best(a + 1e-9)]


def _all_crossings(s_g: torch.Tensor, s_d: torch.Tensor) -> list[float]:
    gap, slope = s_d[:, None] - s_d, (s_g - s_d)[None] - (s_g - s_d)[:, None]
    found = (gap / slope).flatten()
    return sorted({round(float(a), 6) for a in found[(found > 0) & (found < 1)]})


def _with_the_final_winner(s_g: torch.Tensor, s_d: torch.Tensor) -> list[float]:
    first, last = int(s_d.argmax()), int(s_g.argmax())
    if first == last:
        return []
    gap, change = s_d[first] - s_d[last], (s_g - s_d)[last] - (s_g - s_d)[first]
    return [float(gap / change)]


def _on_a_grid(s_g: torch.Tensor, s_d: torch.Tensor) -> list[float]:
    alphas = np.linspace(0, 1, 201)
    winners = [int((a * s_g + (1 - a) * s_d).argmax()) for a in alphas]
    return [float(alphas[i + 1]) for i in range(200) if winners[i] != winners[i + 1]]


def _contests() -> list[tuple]:
    generator = torch.Generator().manual_seed(3)
    made = [tuple(torch.randn(2, n, generator=generator)) for n in (6, 9, 2, 12)]
    return [*made, (torch.tensor([0.2, 0.9]), torch.tensor([0.1, 0.7]))]  # the last: one proposal wins throughout


check_turning_points = Check(
    turning_points,
    {
        "those are all places where two lines cross; keep those where the *highest* line changes": _all_crossings,
        "the first and the last winner need not meet on top: others may win in between": _with_the_final_winner,
        "those are points of a grid; where two straight lines cross can be computed exactly": _on_a_grid,
    },
    "the upper edge of a bundle of lines: that is how every weight between two scores behaves",
    cases=_contests,
)
