"""Masks: COCO's run lengths, sizes, filters, and those that took seconds to compute, kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from .files import cache_dir, write_text

_VERSION = 1


def to_rle(mask: np.ndarray) -> dict[str, Any]:
    """(H, W) bool as COCO run lengths, ready for JSON: ``{"size": [H, W], "counts": text}``."""
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


def from_rle(runs: dict[str, Any]) -> np.ndarray:
    """The inverse of :func:`to_rle`, for run lengths that we wrote ourselves; (H, W) bool."""
    return coco_mask.decode({"size": runs["size"], "counts": runs["counts"].encode()}) > 0


def resize_nearest(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., h, w) to (..., H, W): each new pixel takes the one that its centre falls into."""
    if masks.shape[-2:] == tuple(size):
        return masks
    rows, cols = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, masks.shape[-2:], strict=True))
    return masks[..., rows[:, None], cols]


def as_masks(masks: Any, *sizes: tuple[int, int]) -> np.ndarray:
    """Masks as people have them, as (N, H, W) bool.

    Args:
        masks: (N, H, W) or a list of (H, W): bool, or numbers that are 0 or one other positive value (1, 255); arrays
            or tensors. Also SAM's list of dictionaries with a "segmentation". sizes: (H, W) that are accepted.

    Raises:
        ValueError: another shape, probabilities or logits instead of masks, numbers that are not finite.
    """
    if isinstance(masks, (list, tuple)):
        masks = [m["segmentation"] if isinstance(m, dict) and "segmentation" in m else m for m in masks]
    expected = " or ".join(f"(N, {h}, {w})" for h, w in sizes)
    try:
        if isinstance(masks, torch.Tensor):
            masks = masks.detach().cpu()
        array = np.stack([np.asarray(m) for m in masks]) if len(masks) else np.zeros((0, *sizes[0]), bool)
    except (TypeError, ValueError) as error:
        raise ValueError(f"masks must be {expected} bool, all of one size ({error})") from None
    if array.ndim != 3 or array.shape[1:] not in sizes:
        raise ValueError(f"masks must be {expected} bool, not {array.shape}")
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise ValueError(f"masks must be bool, or numbers that are 0 where nothing is, not {array.dtype}")
    values = np.unique(array)
    if not np.isfinite(values).all() or (len(values) and values[0] < 0) or (values > 0).sum() > 1:
        raise ValueError(
            f"masks must be bool, or 0 and one other value; these hold {len(values)} values from {values[0]} to "
            f"{values[-1]}. Give probabilities as `masks > 0.5`, logits as `masks > 0`, a label image as one mask a label"
        )
    return array > 0


def stack(masks: list[np.ndarray], size: tuple[int, ...]) -> torch.Tensor:
    """(H, W) bool arrays as one (N, H, W) bool tensor; N may be 0."""
    return torch.from_numpy(np.stack(masks)) if masks else torch.zeros((0, *size), dtype=torch.bool)


def unique(masks: torch.Tensor, iou: float = 0.95) -> torch.Tensor:
    """Of masks whose IoU is above ``iou`` keep the first."""
    runs = [to_rle(m) for m in masks.numpy()]
    overlaps = coco_mask.iou(runs, runs, [0] * len(runs)) if runs else np.zeros((0, 0))
    kept: list[int] = []
    for i, row in enumerate(overlaps):
        if not (row[kept] > iou).any():
            kept.append(i)
    return masks[kept]


def keep(masks: torch.Tensor, largest: int | None = None, min_area: float = 1) -> torch.Tensor:
    """Keep the ``largest`` masks, then drop empty ones and those under ``min_area`` pixels; in order of area."""
    areas = torch.tensor([int(torch.count_nonzero(m)) for m in masks], dtype=torch.long)
    order = areas.argsort(descending=True, stable=True)[:largest]
    return masks[order[areas[order] >= max(1, min_area)]]


def cached(image: np.ndarray, settings: dict[str, Any], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The masks (N, H, W) bool that ``compute`` gives, from disk if the same image was asked for with these settings.

    A file that is damaged, or of another format, counts as absent.

    Args:
        image: (H, W, 3) uint8. settings: all that the masks depend on, ready for JSON.
    """
    about = json.dumps({"format": _VERSION, "shape": image.shape, **settings}, sort_keys=True)
    key = hashlib.sha256(about.encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
    path = cache_dir() / "masks" / f"{key[:32]}.json"
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))
        if any(tuple(r["size"]) != image.shape[:2] for r in runs):
            raise ValueError("of another size")
        return stack([from_rle(r) for r in runs], image.shape[:2])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    masks = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps([to_rle(m) for m in masks.numpy()]))
    return masks
