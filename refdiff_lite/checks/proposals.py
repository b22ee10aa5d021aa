"""Checks of lesson 5."""

import numpy as np
import torch
from pycocotools import mask as coco_mask

from .. import proposals
from . import Check


def _tables() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(3, 5, generator=generator), threshold) for threshold in (0.5, 0.7, 0.9)]


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
    maps = [torch.rand(6, 7, generator=generator) for _ in range(3)]
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
    return [(rng.random((3, 5)) > 0.5,), (np.eye(4, dtype=bool),), (np.array([[1, 0], [1, 1], [0, 1]], bool),)]


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
