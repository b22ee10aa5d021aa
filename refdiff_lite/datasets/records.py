"""What every data set gives: images, each with its objects' masks and its referring expressions."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ..images import MAX_PIXELS, load_image

MAX_BYTES = 200 * 2**20
"""Largest image file that is taken out of a zip."""


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
    """One image: where it lies, its objects' segmentations and categories, and what is said of them.

    Masks and pixels are decoded when asked for and not kept, so that a whole data set fits into memory.
    """

    image_id: int
    path: Path
    """The image, or the zip that holds ``member``."""
    size: tuple[int, int]
    """(H, W)."""
    segmentations: tuple[Any, ...]
    """One per object, as COCO writes them: polygons, or RLE with counts as list or text."""
    categories: tuple[str, ...]
    records: tuple[Record, ...]
    member: str | None = None
    """Name inside the zip; empty where the zip lacks the image."""

    @property
    def masks(self) -> np.ndarray:
        """Masks of all objects, (N, H, W) bool."""
        return np.stack([decode(s, self.size) for s in self.segmentations])

    @property
    def found(self) -> bool:
        """Is the image there? Inside a zip: was it listed?"""
        return self.path.is_file() and self.member != ""

    def image(self) -> np.ndarray:
        """Pixels, (H, W, 3) uint8 RGB.

        Raises:
            FileNotFoundError, ValueError: not there, not readable, or not of the size that the annotations name.
        """
        if not self.found:
            raise FileNotFoundError(
                f"no image {self.image_id} in {self.path if self.member == '' else self.path.parent}"
            )
        source: Path | Image.Image = self.path
        if self.member:
            source = Image.open(BytesIO(read_member(self.path, self.member)))
        pixels = load_image(source)
        if pixels.shape[:2] != self.size:
            raise ValueError(f"image {self.image_id} is {pixels.shape[:2]}, its annotations say {self.size}")
        return pixels

    def digest(self) -> str:
        """Hash of all that the annotations say of this image, to tell two versions of a data set apart."""
        content = [self.image_id, self.size, self.segmentations, self.categories]
        content.append([[r.sent_id, r.text, r.style, r.target] for r in self.records])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def open_zip(path: Path) -> ZipFile:
    """A zip, kept open: reading the list of COCO's 82,783 members takes a second.

    Raises:
        ValueError: it is no zip, or it names a member outside itself.
    """
    try:
        archive = ZipFile(path)
    except (BadZipFile, OSError) as error:
        raise ValueError(f"{path} is not a readable zip ({error}); copy or download it again") from error
    for name in archive.namelist():
        if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
            raise ValueError(f"{path} is refused: its member {name!r} points outside of it")
    return archive


def read_member(path: Path, member: str) -> bytes:
    archive = open_zip(path)
    if archive.getinfo(member).file_size > MAX_BYTES:
        raise ValueError(f"{member} in {path} unpacks to more than {MAX_BYTES // 2**20} MiB")
    try:
        return archive.read(member)
    except (BadZipFile, RuntimeError, NotImplementedError, zlib.error) as error:
        raise ValueError(f"{member} in {path} cannot be unpacked ({error})") from error


def decode(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """A COCO segmentation as (H, W) bool; polygons that overlap are united.

    Raises:
        ValueError: it is no segmentation of an image of this size.
    """
    height, width = size
    try:
        if isinstance(segmentation, dict):
            counts = segmentation["counts"]
            counts = counts if isinstance(counts, list) else _run_lengths(counts)
            # pycocotools checks none of this and would show memory that is not ours.
            if tuple(segmentation["size"]) != size or sum(counts) != height * width or min(counts) < 0:
                raise ValueError(f"its run lengths are not those of {height}×{width} pixels")
            rle = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
        else:
            far = 10 * max(size)
            if not segmentation or any(len(p) < 6 or len(p) % 2 for p in segmentation):
                raise ValueError("a polygon needs three corners")
            if not all(isfinite(x) and abs(x) <= far for p in segmentation for x in p):
                raise ValueError("a corner lies far outside the image")
            rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
        return coco_mask.decode(rle) > 0
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"damaged segmentation: {error}") from error


def _run_lengths(text: str) -> list[int]:
    """Run lengths in COCO's compressed text: five bits a character, each but the first three a difference."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16) << (shift - 4)  # the sign
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def parse_json(text: str) -> Any:
    """JSON as the standard has it: NaN, Infinity and numbers beyond a double raise ValueError."""

    def number(digits: str) -> float:
        if not isfinite(float(digits)):
            raise ValueError(f"the number {digits[:20]} is not finite")
        return float(digits)

    try:
        return json.loads(text, parse_float=number, parse_constant=number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path) -> Any:
    """:func:`parse_json` of a file; FileNotFoundError and ValueError name it."""
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; check the path")
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not sound JSON ({error}); copy or download it again") from error


def build_samples(
    instances: Any, refs: Iterable[Any], locate: Callable[[dict], tuple[Path, str | None]], style: str = ""
) -> list[Sample]:
    """Join COCO instances and REFER's references to samples, one for every image of ``instances``.

    Args:
        refs: dictionaries with ann_id, image_id and sentences. locate: an image's entry to its path and zip member.
        style: given to sentences that name none.

    Raises:
        ValueError: an entry lacks what it must have, or a reference names an object that is not there.
    """
    try:
        names = {c["id"]: str(c["name"]) for c in instances["categories"]}
        annotations, said, samples = defaultdict(list), defaultdict(list), []
        for annotation in instances["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
        for ref in refs:
            said[ref["image_id"]].append(ref)
        for image in instances["images"]:
            height, width = int(image["height"]), int(image["width"])
            if not 0 < height * width <= MAX_PIXELS:
                raise ValueError(f"image {image['id']} of {height}×{width} pixels")
            found = annotations[image["id"]]
            place = {a["id"]: i for i, a in enumerate(found)}
            records = tuple(
                Record(int(s["sent_id"]), str(s["sent"]), s.get("style", style), place[ref["ann_id"]])
                for ref in said[image["id"]]
                for s in ref["sentences"]
            )
            path, member = locate(image)
            categories = tuple(names[a["category_id"]] for a in found)
            segmentations = tuple(a["segmentation"] for a in found)
            samples.append(Sample(image["id"], path, (height, width), segmentations, categories, records, member))
        return samples
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the annotations are not COCO's and REFER's ({type(error).__name__}: {error})") from error
