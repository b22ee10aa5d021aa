"""Masks: COCO's segmentations, sizes, filters, and those that took seconds to compute, kept on disk."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Shaped
from pycocotools import mask as coco_mask

from .files import MAX_PIXELS, cache_dir, write_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_VERSION = 2
MAX_RUNS = 5_000_000
"""Most run lengths of a mask, or characters of them."""
MAX_MEMORY = 2 * 10**9
"""Most bytes of the masks of one image."""
MAX_PARTS, MAX_OUTLINE = 10_000, 1_000_000
"""Most polygons of one object, and their greatest length together in pixels; pycocotools needs memory for each pixel."""


def to_rle(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """(H, W) bool as COCO run lengths, ready for JSON: ``{"size": [H, W], "counts": text}``."""
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


def from_rle(runs: dict[str, Any]) -> Bool[np.ndarray, "h w"]:
    """The inverse of :func:`to_rle`; (H, W) bool. Raises ValueError as :func:`decode`."""
    return decode(runs, runs.get("size") or ())


def decode(segmentation: Any, size: Sequence[int]) -> Bool[np.ndarray, "h w"]:
    """A COCO segmentation as (H, W) bool; polygons that overlap are united.

    Args:
        segmentation: polygons, each [x0, y0, x1, y1, ...] in pixels, or run lengths down the columns,
            ``{"size": [H, W], "counts": list or compressed text}``.
        size: (H, W), at most 50 megapixels.

    Raises:
        ValueError: it is no segmentation of an image of this size, or it is larger than :data:`MAX_RUNS`,
            :data:`MAX_PARTS` and :data:`MAX_OUTLINE` allow.
    """
    try:
        if len(size) != 2 or not all(isinstance(n, (int, np.integer)) and 0 < n <= MAX_PIXELS for n in size):
            raise ValueError(f"its size is {str(size)[:40]}, not a height and a width in pixels")
        height, width = size
        if height * width > MAX_PIXELS:
            raise ValueError(f"{height}×{width} are more than {MAX_PIXELS // 10**6} megapixels")
        if isinstance(segmentation, dict):
            if list(segmentation["size"]) != [height, width]:
                raise ValueError(f"its run lengths are not those of {height}×{width} pixels")
            parts = [_run_lengths(segmentation["counts"])]
        else:
            parts = [_run_lengths(outline["counts"]) for outline in _outlines(segmentation, height, width)]
        # A run of ones begins and ends where the sum of the runs before it says: +1 and -1, whose running sum is the
        # number of parts that cover a pixel. Own code, for pycocotools shows memory that is not ours when counts lie.
        change = np.zeros(height * width + 1, np.int16)
        for runs in parts:
            if runs.min() < 0 or runs.max() > height * width or runs.sum() != height * width:
                raise ValueError(f"its run lengths are not those of {height}×{width} pixels")
            ends = np.cumsum(runs)
            np.add.at(change, ends[0::2], 1)
            np.add.at(change, ends[1::2], -1)
        return (np.cumsum(change, out=change)[:-1] > 0).reshape(width, height).T
    except KeyError as error:
        raise ValueError(f"damaged segmentation: it has no {error}") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"damaged segmentation: {str(error)[:200]}") from None


def _run_lengths(counts: Any) -> np.ndarray:
    """Run lengths from a list, or from COCO's compressed text; (n,) int64."""
    if not isinstance(counts, (str, bytes, list)) or not 0 < len(counts) <= MAX_RUNS:
        raise ValueError(f"its run lengths must be a list or a text, of at most {MAX_RUNS} entries")
    if isinstance(counts, list):
        found = np.asarray(counts)
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise ValueError("its run lengths are no whole numbers")
        return found.astype(np.int64)
    text = counts if isinstance(counts, bytes) else counts.encode("ascii")
    # Five bits a character, the lowest first; bit 6 says that the number goes on, bit 5 of its last character is a sign.
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("its run lengths are cut short, or hold other characters than COCO's")
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    length = last - first + 1
    if length.max() > 7:
        raise ValueError("a run length is beyond the size of any image")
    place = np.arange(len(codes)) - np.repeat(first, length)
    runs = np.add.reduceat((codes & 31) << (5 * place), first) - ((codes[last] & 16) >> 4 << (5 * length))
    for chain in (runs[1::2], runs[2::2]):  # all but the first three are differences to the run two before
        np.cumsum(chain, out=chain)
    return runs


def _outlines(polygons: Any, height: int, width: int) -> list[dict[str, Any]]:
    """Polygons, checked and bounded, as pycocotools' run lengths."""
    if not isinstance(polygons, (list, tuple)) or not 0 < len(polygons) <= MAX_PARTS:
        raise ValueError(f"polygons must be a list of 1 to {MAX_PARTS} lists")
    arrays, total = [], 0.0
    for polygon in polygons:
        corners = np.asarray(polygon)
        if corners.ndim != 1 or len(corners) % 2 or len(corners) < 6 or corners.dtype.kind not in "iuf":
            raise ValueError("a polygon needs three corners, as a flat list of numbers x, y, x, y, ...")
        if not (np.isfinite(corners) & (np.abs(corners) <= 10 * max(height, width))).all():
            raise ValueError("a corner lies far outside the image")
        steps = np.diff(corners.reshape(-1, 2).astype(float), axis=0, append=corners[None, :2])
        total += np.abs(steps).max(1).sum()
        arrays.append(corners.astype(float))
    if total > MAX_OUTLINE:
        raise ValueError(f"its outline is {total:.0f} pixels long; at most {MAX_OUTLINE} are admitted")
    return coco_mask.frPyObjects(arrays, height, width)


def resize_nearest(masks: Shaped[np.ndarray, "*n _ _"], size: tuple[int, int]) -> Shaped[np.ndarray, "*n h w"]:
    """(..., h, w) to (..., H, W): each new pixel takes the one that its centre falls into."""
    if masks.shape[-2:] == tuple(size):
        return masks
    rows, cols = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, masks.shape[-2:], strict=True))
    return masks[..., rows[:, None], cols]


def blank(number: int, size: tuple[int, int]) -> Bool[np.ndarray, "n h w"]:
    """So many empty masks, (N, H, W) bool. Raises ValueError if they need more than :data:`MAX_MEMORY` bytes."""
    if number * size[0] * size[1] > MAX_MEMORY:
        raise ValueError(
            f"{number} masks of {size[0]}×{size[1]} pixels are more than memory should hold; shrink the image"
        )
    return np.zeros((number, *size), bool)


def as_masks(masks: Any, *sizes: tuple[int, int]) -> Bool[np.ndarray, "n h w"]:
    """Masks as people have them, as (N, H, W) bool, never the memory that was given.

    Args:
        masks: (N, H, W), a list of (H, W), or one (H, W): bool, or numbers that are 0 and one other value, which is 1 or
            255 for floats; arrays, tensors, PIL images, nested lists. Also SAM's list of dictionaries and COCO's
            annotations, with a "segmentation" each, and run lengths as :func:`to_rle` writes them.
        sizes: (H, W) that are accepted; polygons are those of the first.

    Raises:
        ValueError: another shape, probabilities or logits or a label image instead of masks, numbers that are not finite.
    """
    expected = " or ".join(f"(N, {h}, {w})" for h, w in sizes)
    if tuple(getattr(masks, "shape", ())) in sizes:
        masks = masks[None]
    try:
        found = [_as_mask(m, sizes) for m in masks]
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"masks must be {expected} bool: {error}") from None
    if len({m.shape for m in found}) > 1:
        raise ValueError(f"masks must be {expected} bool, all of one size")
    return np.stack(found) if found else np.zeros((0, *sizes[0]), bool)


def _as_mask(mask: Any, sizes: tuple[tuple[int, int], ...]) -> np.ndarray:
    if isinstance(mask, dict):
        if isinstance(mask.get("segmentation"), (list, tuple)):
            return decode(mask["segmentation"], sizes[0])
        mask = mask.get("segmentation", mask)
    if isinstance(mask, dict):
        mask = from_rle(mask)
    held: Any = mask
    if hasattr(held, "detach"):  # a torch tensor; numpy knows no bfloat16
        mask = (held.detach().float() if held.is_floating_point() else held.detach()).cpu().numpy()
    array = np.asarray(mask)
    if array.shape not in sizes:
        raise ValueError(f"one is of shape {array.shape}")
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise ValueError(f"one holds {array.dtype}, not bool or numbers that are 0 where nothing is")
    low, high = array.min(), array.max()
    odd = array.dtype.kind == "f" and high not in (0, 1, 255)
    if odd or not low >= 0 or not ((array == 0) | (array == high)).all():
        raise ValueError(
            f"one holds numbers from {low:.4g} to {high:.4g}, not 0 and one other value. Give probabilities as "
            "`masks > 0.5`, logits as `masks > 0`, a label image as one mask for each label"
        )
    return array > 0


def stack(masks: list[Bool[np.ndarray, "h w"]], size: tuple[int, ...]) -> Bool[Tensor, "n h w"]:
    """(H, W) bool arrays as one (N, H, W) bool tensor; N may be 0."""
    import torch

    return torch.from_numpy(np.stack(masks)) if masks else torch.zeros((0, *size), dtype=torch.bool)


def unique(masks: Bool[Tensor, "n h w"], iou: float = 0.95) -> Bool[Tensor, "kept h w"]:
    """Of masks whose IoU is above ``iou`` keep the first."""
    runs = [to_rle(m) for m in masks.numpy()]
    overlaps = coco_mask.iou(runs, runs, [0] * len(runs)) if runs else np.zeros((0, 0))
    kept: list[int] = []
    for i, row in enumerate(overlaps):
        if not (row[kept] > iou).any():
            kept.append(i)
    return masks[kept]


def keep(masks: Bool[Tensor, "n h w"], largest: int | None = None, min_area: float = 1) -> Bool[Tensor, "kept h w"]:
    """Keep the ``largest`` masks, then drop empty ones and those under ``min_area`` pixels; in order of area."""
    import torch

    areas = torch.tensor([int(torch.count_nonzero(m)) for m in masks], dtype=torch.long)
    order = areas.argsort(descending=True, stable=True)[:largest]
    return masks[order[areas[order] >= max(1, min_area)]]


def cached(image: np.ndarray, settings: dict[str, Any], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The masks (N, H, W) bool that ``compute`` gives, from disk if the same image was asked for with these settings.

    A file that is damaged, or of another format, counts as absent; where none can be written a warning says so.

    Args:
        image: (H, W, 3) uint8. settings: all that the masks depend on, ready for JSON.
    """
    about = json.dumps({"format": _VERSION, "shape": image.shape, **settings}, sort_keys=True)
    key = hashlib.sha256(about.encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
    path = cache_dir() / "masks" / f"{key[:32]}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["sha256"] != _checksum(kept["masks"]):
            raise ValueError("not as it was written")
        return stack([decode(runs, image.shape[:2]) for runs in kept["masks"]], image.shape[:2])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    masks = compute()
    found = [to_rle(m) for m in masks.numpy()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"sha256": _checksum(found), "masks": found}))
    except OSError as error:  # seconds of work are done: better to have them once than not at all
        warnings.warn(f"the masks cannot be kept in {path.parent} ({error.strerror}); set REFDIFF_CACHE", stacklevel=2)
    return masks


def _checksum(runs: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(runs).encode()).hexdigest()
