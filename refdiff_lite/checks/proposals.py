"""Checks of lesson 5."""

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torchvision.ops import box_iou, nms

from .. import proposals
from . import Check, Guess

guess_pixels = Guess("pixels of the cut that S_G chooses")


def _tables() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((3, 5, 0.5), (6, 2, 0.7), (4, 9, 0.9))
    return [(torch.rand(n, k, generator=generator), threshold) for n, k, threshold in sizes]


check_recall = Check(
    lambda table, threshold: float((table.amax(0) >= threshold).float().mean()),
    {
        "that is the share of good proposals (precision): take the maximum over proposals, for every object": (
            lambda table, threshold: float((table.amax(1) >= threshold).float().mean())
        ),
        "that counts every pair: an object is found if one proposal fits it, the others may be bad": (
            lambda table, threshold: float((table >= threshold).float().mean())
        ),
        "that is the mean best IoU; recall counts how many objects reach the threshold": (
            lambda table, threshold: float(table.amax(0).mean())
        ),
    },
    "recall asks the objects, not the proposals: bad masks cost nothing here, missing ones do",
    cases=_tables,
)


def _maps() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(*size, generator=generator) for size in ((6, 7), (4, 9), (11, 5))]
    return [(c, c > height) for c, height in zip(maps, (0.3, 0.5, 0.8), strict=True)]


def _gap(c: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return c[mask].mean() - c[~mask].mean()


check_otsu = Check(
    lambda c, mask: proposals.otsu_choice(c, mask[None])[0],
    {
        "the gap of the two means must be squared, or its unit is not that of a variance": (
            lambda c, mask: mask.float().mean() * (1 - mask.float().mean()) * _gap(c, mask)
        ),
        "p weighs one side only: with p alone, the largest mask is favoured; use p (1 - p)": (
            lambda c, mask: mask.float().mean() * _gap(c, mask) ** 2
        ),
        "that is S_G: it does not know how large the mask is": _gap,
    },
    "p (1 - p) is largest when both sides are equally large: specks are no longer favoured",
    cases=_maps,
)


def _runs(mask: np.ndarray) -> list[int]:
    """Run lengths as pycocotools counts them: between the borders of its own decoding."""
    decoded = coco_mask.decode(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))
    return _lengths(decoded.ravel(order="F") > 0)


def _lengths(flat: np.ndarray, first: bool = False) -> list[int]:
    borders = np.flatnonzero(np.diff(np.concatenate([[first], flat]).astype(int)))
    return np.diff([0, *borders, flat.size]).tolist()


def _small_masks() -> list[tuple]:
    rng = np.random.default_rng(0)
    some = [(rng.random(size) > 0.5,) for size in ((3, 5), (6, 2))]
    return [*some, (np.eye(4, dtype=bool),), (np.array([[1, 0], [1, 1], [0, 1]], bool),), (np.zeros((2, 3), bool),)]


check_run_lengths = Check(
    _runs,
    {
        "those are runs along the rows: COCO walks down the columns (mask.T.ravel())": lambda mask: _lengths(
            mask.ravel()
        ),
        "the first run must count zeros: a mask that begins with a one begins with a run of 0": (
            lambda mask: [n for n in _lengths(mask.T.ravel()) if n]
        ),
        "those are the places where runs begin; their lengths are the differences": (
            lambda mask: np.flatnonzero(np.diff(np.concatenate([[False], mask.T.ravel()]).astype(int))).tolist()
        ),
    },
    "zeros first, columns first: these are the counts that pycocotools packs",
    cases=_small_masks,
)


def best_cut(c: torch.Tensor) -> float:
    """The height of the best cut, by trying each one."""
    heights = c.flatten().unique().tolist()[1:]
    scores = proposals.otsu_choice(c.double(), torch.stack([c >= h for h in heights]))
    return heights[int(scores.argmax())]


def _best_gap(c: torch.Tensor) -> float:
    heights = c.flatten().unique().tolist()[1:]
    return max(heights, key=lambda h: float(_gap(c, c >= h)))


def _among_nineteen(c: torch.Tensor) -> float:
    return (int(proposals.otsu_choice(c, proposals.weak(c)).argmax()) + 1) / 20


def _last_outside(c: torch.Tensor) -> float:
    values = c.flatten().unique().tolist()
    return values[values.index(best_cut(c)) - 1]


def _uneven_maps() -> list[tuple]:
    generator = torch.Generator().manual_seed(5)
    maps = [
        torch.rand(*size, generator=generator) ** power for size, power in (((6, 7), 1), ((12, 5), 3), ((9, 9), 0.5))
    ]
    return [(c,) for c in maps] + [((10 * torch.rand(8, 6, generator=generator)).round() / 10,)]  # with equal values


check_best_cut = Check(
    best_cut,
    {
        "that is the best gap of the two means; weigh it by p (1 - p)": _best_gap,
        "that is the best of nineteen heights; all values of c are candidates": _among_nineteen,
        "that is the largest value outside; the smallest inside is asked for": _last_outside,
    },
    "sorted once, summed once: the best of all cuts",
    cases=_uneven_maps,
)


def suppress(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    """Non-maximum suppression, as torchvision does it."""
    return nms(boxes, scores, threshold).tolist()


def _as_given(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    order, table = scores.argsort(descending=True).tolist(), box_iou(boxes, boxes)
    return [i for n, i in enumerate(order) if all(table[i, j] <= threshold for j in order[:n])]


def _worst_first(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    return suppress(boxes, -scores, threshold)


def _boxes() -> list[tuple]:
    generator = torch.Generator().manual_seed(2)
    row = torch.tensor([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10], [9, 0, 19, 10]]).float()
    cases = [(row, torch.tensor([0.9, 0.8, 0.7, 0.6]), 0.5)]
    for n, threshold in ((8, 0.3), (15, 0.2)):
        corner, size = 20 * torch.rand(n, 2, generator=generator), 8 + 8 * torch.rand(n, 2, generator=generator)
        cases.append((torch.cat([corner, corner + size], 1), torch.rand(n, generator=generator), threshold))
    return cases


check_suppress = Check(
    suppress,
    {
        "that is the code as it was given: a box that has been dropped still drops others": _as_given,
        "the most confident box comes first": _worst_first,
        "these are sorted by place; list them best first": lambda *args: sorted(suppress(*args)),
    },
    "kept as torchvision keeps them: only boxes that are kept may drop others",
    cases=_boxes,
)
