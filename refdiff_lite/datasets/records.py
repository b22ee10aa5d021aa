"""What every data set gives: images, each with its objects' masks and its referring expressions."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..files import MAX_PIXELS
from ..images import load_image
from ..masks import blank, decode
from .formats import read_json, read_member


@dataclass(frozen=True)
class Record:
    """One sentence about one object of an image."""

    sent_id: int
    text: str
    style: str
    target: int
    """Index of the named object in ``Sample.masks``."""
    problem: str = ""
    """Why the sentence cannot be answered, where its annotations are damaged: it then counts as IoU 0."""


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
    problem: str = ""
    """What is wrong with the whole image's annotations; ``size`` is then (1, 1)."""

    @property
    def masks(self) -> np.ndarray:
        """Masks of all objects, (N, H, W) bool; a damaged one is empty, and a warning says so."""
        masks = blank(len(self.segmentations), self.size)
        for i, segmentation in enumerate(self.segmentations):
            try:
                masks[i] = decode(segmentation, self.size)
            except ValueError as error:
                warnings.warn(f"image {self.image_id}, object {i} counts as empty: {error}", stacklevel=2)
        return masks

    @property
    def found(self) -> bool:
        """Is the image there? Inside a zip: was it listed?"""
        return self.path.is_file() and self.member != ""

    def image(self) -> np.ndarray:
        """Pixels as they are stored, for that is what annotations refer to; (H, W, 3) uint8 RGB.

        Raises:
            FileNotFoundError, ValueError: not there, not readable, or not of the size that the annotations name.
        """
        if self.problem:
            raise ValueError(self.problem)
        if not self.found:
            raise FileNotFoundError(
                f"no image {self.image_id} in {self.path if self.member == '' else self.path.parent}"
            )
        source = read_member(self.path, self.member) if self.member else self.path
        pixels = load_image(source, upright=False)
        if pixels.shape[:2] != self.size:
            raise ValueError(f"image {self.image_id} is {pixels.shape[:2]}, its annotations say {self.size}")
        return pixels

    def why_not(self, record: Record) -> str:
        """Why the annotations do not let this sentence be answered, or nothing."""
        if self.problem or record.problem:
            return self.problem or record.problem
        try:
            decode(self.segmentations[record.target], self.size)
        except ValueError as error:
            return str(error)
        return ""

    def digest(self) -> str:
        """Hash of all that the annotations say of this image, to tell two versions of a data set apart."""
        content = [self.image_id, self.size, self.segmentations, self.categories]
        content.append([[r.sent_id, r.text, r.style, r.target] for r in self.records])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def build_samples(
    instances: Any, refs: Iterable[Any], locate: Callable[[dict], tuple[Path, str | None]], style: str = ""
) -> list[Sample]:
    """Join COCO instances and REFER's references to samples, one for every image that something is said of.

    What is damaged costs its own sentences only: they say why in ``Record.problem`` or ``Sample.problem``.

    Args:
        refs: dictionaries with ann_id, image_id and sentences. locate: an image's entry to its path and zip member.
        style: given to sentences that name none.

    Raises:
        ValueError: these are no COCO annotations at all, or a reference is no dictionary.
    """
    names = {i: str(c.get("name")) for i, c in _table(instances, "categories")[0].items()}
    (images, twice), (annotations, doubled) = _table(instances, "images"), _table(instances, "annotations")
    objects, said = defaultdict(list), defaultdict(list)
    for annotation in annotations.values():
        objects[_id(annotation.get("image_id"))].append(annotation)
    for ref in refs:
        if not isinstance(ref, dict):
            raise ValueError("the references are not REFER's: one is no dictionary")
        said[_id(ref.get("image_id"))].append(ref)
    samples, numbers = [], set[int]()
    for image_id in [*(i for i in images if i in said), *(i for i in said if i not in images)]:
        image, found = images.get(image_id, {}), objects[image_id] if image_id in images else []
        problem = _problem(image_id, image, image_id in twice)
        size = (1, 1) if problem else (int(image["height"]), int(image["width"]))
        path, member = locate(image) if image else (Path(), "")
        places = {a["id"]: n for n, a in enumerate(found)}
        records = tuple(_records(said[image_id], places, doubled, numbers, style))
        lost = max((r.target + 1 for r in records), default=0) > len(found)  # what a sentence names and nobody knows
        segmentations = (*(_shallow(a.get("segmentation")) for a in found), *[None] * lost)
        categories = (*(names.get(_id(a.get("category_id")), "unknown") for a in found), *["unknown"] * lost)
        samples.append(Sample(image_id, path, size, segmentations, categories, records, member, problem))
    return samples


def _id(value: Any) -> int:
    """A whole number that fits into 64 bits; -1 for everything else."""
    return value if type(value) is int and abs(value) < 2**63 else -1


def _table(instances: Any, key: str) -> tuple[dict[int, dict[str, Any]], set[int]]:
    """COCO's entries of one kind by their id, the first of each, and the ids that different entries share."""
    entries = instances.get(key) if isinstance(instances, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f"the annotations are not COCO's: there is no list of {key}")
    found: dict[int, dict[str, Any]] = {}
    doubled = set()
    for entry in entries:
        number = _id(entry.get("id")) if isinstance(entry, dict) else -1
        if number != -1 and not _same(found.setdefault(number, entry), entry):
            doubled.add(number)
    return found, doubled


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except RecursionError:  # nested as no annotation is
        return False


def _problem(image_id: int, image: dict[str, Any], twice: bool) -> str:
    if not image:
        return f"the annotations know no image {image_id}" if image_id != -1 else "its reference names no image"
    if twice:
        return f"the annotations have two different images {image_id}"
    sides: list[Any] = [image.get("height"), image.get("width")]
    if not all(type(n) in (int, float) and 0 < n <= MAX_PIXELS and n == int(n) for n in sides):
        return f"image {image_id} of {str(sides[0])[:20]}×{str(sides[1])[:20]} pixels: that is no size"
    if sides[0] * sides[1] > MAX_PIXELS:
        return f"image {image_id} of {sides[0]}×{sides[1]} pixels is larger than {MAX_PIXELS // 10**6} megapixels"
    return ""


def _records(
    refs: list[dict[str, Any]], places: dict[int, int], doubled: set[int], numbers: set[int], style: str
) -> Iterable[Record]:
    """The sentences of one image; ``numbers`` are the ids that were given away, in other images too."""
    for ref in refs:
        target, sentences = _id(ref.get("ann_id")), ref.get("sentences")
        wrong = "" if target in places else f"there is no object {target} in this image"
        if target in doubled:
            wrong = f"the annotations have two different objects {target}"
        for sentence in sentences if isinstance(sentences, list) and sentences else [None]:
            entry = sentence if isinstance(sentence, dict) else {}
            text, number, own = entry.get("sent"), _id(entry.get("sent_id")), entry.get("style", style)
            problem = wrong
            if not isinstance(text, str):
                text, problem = "", "a reference has no sentence"
            elif not _is_unicode(text):
                text, problem = text.encode("utf-8", "backslashreplace").decode(), "its text is not Unicode"
            elif number == -1 or number in numbers:
                problem = (
                    f"it has the number of another sentence, {number}" if number in numbers else "it has no number"
                )
            if number == -1 or number in numbers:
                number = -2 - len(numbers)  # one of its own, so that its row is one row
            numbers.add(number)
            own = own if isinstance(own, str) and _is_unicode(own) else style
            yield Record(number, text, own, places.get(target, len(places)), problem)


def _is_unicode(text: str) -> bool:
    """Does it have no half of a surrogate pair, which no file can take?"""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _shallow(segmentation: Any, levels: int = 3) -> Any:
    """The segmentation, or nothing where lists hold lists beyond what a segmentation has."""
    inner = segmentation.values() if isinstance(segmentation, dict) else segmentation
    if isinstance(segmentation, (dict, list)) and (not levels or any(_shallow(v, levels - 1) is None for v in inner)):
        return None
    return segmentation


def masks_of(instances: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    """Masks of all objects of an image in a COCO file, (N, H, W) bool.

    Args:
        name: the image's file name, without folders. size: (H, W) of its pixels as stored.

    Raises:
        FileNotFoundError, ValueError: no such file; no COCO annotations; no image of this name, or several; another
            size; a damaged segmentation.
    """
    found = read_json(instances)
    (images, twice), (annotations, doubled) = _table(found, "images"), _table(found, "annotations")
    ids = [i for i, entry in images.items() if PurePosixPath(str(entry.get("file_name"))).name == name]
    objects = [a for a in annotations.values() if ids and _id(a.get("image_id")) == ids[0]]
    if len(ids) > 1 or twice & set(ids) or doubled & {a["id"] for a in objects}:
        raise ValueError(f"{instances} has several images {name}, or several objects of one id: which is meant?")
    if not objects:
        raise ValueError(f"{instances} has no masks for {name}")
    if problem := _problem(ids[0], images[ids[0]], False):
        raise ValueError(f"{instances}: {problem}")
    if (stated := (images[ids[0]]["height"], images[ids[0]]["width"])) != size:
        raise ValueError(f"{name} is stored as {size[0]}×{size[1]} pixels, {instances} says {stated[0]}×{stated[1]}")
    masks = blank(len(objects), size)
    for mask, entry in zip(masks, objects, strict=True):
        try:
            mask[:] = decode(entry.get("segmentation"), size)
        except ValueError as error:
            raise ValueError(f"{instances}, annotation {entry['id']}: {error}") from None
    return masks
