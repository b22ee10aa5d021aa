"""Proposals that took seconds to compute, kept on disk by image content and settings: COCO RLE in JSON, no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from .images import write_text
from .paths import cache_dir

_VERSION = 1


def to_rle(masks: torch.Tensor) -> list[dict[str, Any]]:
    """(N, H, W) bool masks as COCO run lengths, with bytes in ``counts``."""
    return [coco_mask.encode(np.asfortranarray(m.numpy().astype(np.uint8))) for m in masks]


def cached(image: np.ndarray, settings: dict[str, Any], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The masks (N, H, W) bool that ``compute`` gives, from disk if the same image was asked for with these settings.

    A file that is damaged, or of another format, counts as absent.

    Args:
        image: (H, W, 3) uint8. settings: all that the masks depend on, ready for JSON.
    """
    about = json.dumps({"format": _VERSION, "shape": image.shape, **settings}, sort_keys=True)
    key = hashlib.sha256(about.encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
    path = cache_dir() / "masks" / f"{key[:32]}.json"
    masks = _read(path, image.shape[:2])
    if masks is None:
        masks = compute()
        runs = [{"size": list(r["size"]), "counts": r["counts"].decode()} for r in to_rle(masks)]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(runs))
    return masks


def _read(path: Path, size: tuple[int, ...]) -> torch.Tensor | None:
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))
        if any(tuple(r["size"]) != size for r in runs):
            return None
        found = [coco_mask.decode({"size": r["size"], "counts": r["counts"].encode()}) > 0 for r in runs]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return torch.from_numpy(np.stack(found)) if found else torch.zeros((0, *size), dtype=torch.bool)
