"""What every data set gives: images, each with its objects' masks and its referring expressions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Record:
    """One sentence about one object of an image."""

    sent_id: int
    text: str
    style: str
    target: int
    """Index of the named object in ``Sample.masks``."""


@dataclass(frozen=True)
class Sample:
    """One image: its file, the masks of its objects (N, H, W) bool, what they are, and what is said of them."""

    image_id: int
    path: Path
    masks: np.ndarray
    categories: tuple[str, ...]
    records: tuple[Record, ...]
