"""RefCOCO, RefCOCO+ and RefCOCOg: original pickles or the hub's parquet copies, images from a folder or a zip.

Nothing is downloaded: the annotations carry no clear licence. ``DATA/refcoco/`` (``refcoco+``, ``refcocog``) holds
either ``instances.json`` with ``refs(unc).p`` and so on, or the parquet files of ``jxu124/refcoco`` (``refcocoplus``,
``refcocog``). The images are COCO's train2014.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .records import Sample, build_samples, open_zip, parse_json, read_json

PUBLISHED: dict[str, dict[str, dict[str, int]]] = {
    "refcoco": {"unc": {"val": 3811, "testA": 1975, "testB": 1810}},
    "refcoco+": {"unc": {"val": 3805, "testA": 1975, "testB": 1798}},
    "refcocog": {"umd": {"val": 2573, "test": 5023}, "google": {"val": 5000}},
}
"""Number of references per data set, partition (``splitBy``) and split."""
HUB = {"refcoco": "jxu124/refcoco", "refcoco+": "jxu124/refcocoplus", "refcocog": "jxu124/refcocog"}
_PLAIN: dict[str, Any] = {t.__name__: t for t in (list, dict, tuple, set, frozenset, str, int, float, bool)}
_PLAIN |= {"unicode": str, "long": int}  # as Python 2 named them
_COLUMNS = ["ref_id", "ann_id", "image_id", "split", "sentences", "raw_anns", "raw_image_info"]


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, text and numbers; every other name in the pickle is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("builtins", "__builtin__") and name in _PLAIN:
            return _PLAIN[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only plain lists, texts and numbers are admitted")


def read_pickle(path: Path) -> Any:
    """Read a pickle, of Python 2 too, that can do nothing but hold data.

    Raises:
        FileNotFoundError, ValueError: no such file; it is damaged, or it names anything but builtin containers,
            text and numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; check the path")
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is refused: {error or 'it is cut short'}") from error
    except (MemoryError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is refused: it asks for too much memory") from error


def read_parquet(folder: Path, name: str, split: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(COCO instances, references) of one split of a hub copy. It knows only the objects that are referred to.

    Raises:
        ImportError, FileNotFoundError, ValueError: ``datasets`` is missing; no such split; another layout.
    """
    stem = {"val": "validation", "testA": "test"}.get(split, split)
    files: list[Any] = sorted(str(p) for place in (folder, folder / "data") for p in place.glob(f"{stem}-*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} has neither instances.json nor {stem}-*.parquet; see {HUB[name]} on the hub")
    try:
        from datasets import Dataset, disable_progress_bars
    except ImportError as error:
        raise ValueError('parquet files need one package more: pip install "refdiff-lite[parquet]"') from error
    disable_progress_bars()
    with TemporaryDirectory() as cache:
        data = Dataset.from_parquet(files, cache_dir=cache, keep_in_memory=True)
        if missing := set(_COLUMNS) - set(data.column_names):
            raise ValueError(
                f"{files[0]} lacks {', '.join(sorted(missing))}: this is not the layout of {HUB[name]}. Copies such as "
                "lmms-lab/RefCOCO also mix the partitions of UNC or UMD with Google's"
            )
        rows = data.select_columns(_COLUMNS).to_list()
    if odd := {r["split"] for r in rows} - {split, stem}:
        raise ValueError(
            f"{files[0]} also holds references of {', '.join(sorted(map(str, odd)))}, not of {split} alone"
        )
    images = {r["image_id"]: parse_json(r["raw_image_info"]) | {"id": r["image_id"]} for r in rows}
    objects = {r["ann_id"]: parse_json(r["raw_anns"]) | {"id": r["ann_id"], "image_id": r["image_id"]} for r in rows}
    kinds = [{"id": i, "name": f"category {i}"} for i in sorted({a["category_id"] for a in objects.values()})]
    return {"images": list(images.values()), "annotations": list(objects.values()), "categories": kinds}, rows


def image_finder(place: Path) -> Callable[[dict], tuple[Path, str | None]]:
    """From an image's entry to where it lies: by number in a folder or a zip, whatever its folders are called.

    Raises:
        FileNotFoundError, ValueError: no such place; the zip is damaged or points outside of itself.
    """
    if place.is_dir():
        folder = place / "train2014" if (place / "train2014").is_dir() else place
        names = ("COCO_train2014_{:012d}.jpg", "{:012d}.jpg")

        def in_folder(image: dict) -> tuple[Path, str | None]:
            paths = [folder / name.format(image["id"]) for name in names]
            return next((p for p in paths if p.is_file()), paths[0]), None

        return in_folder
    if not place.is_file():
        raise FileNotFoundError(f"no folder or zip of images at {place}; name COCO's train2014 with --images")
    numbers = ((re.search(r"(\d{12})\.jpe?g$", name), name) for name in open_zip(place).namelist())
    members = {int(found[1]): name for found, name in numbers if found}
    return lambda image: (place, members.get(image["id"], ""))


def check_count(name: str, by: str, split: str, refs: list[Any]) -> None:
    """Refuse the merged-split trap: more references than were published, or one of them twice."""
    published = PUBLISHED[name][by][split]
    twice = [i for i, n in Counter(r["ref_id"] for r in refs).items() if n > 1]
    if len(refs) > published or twice:
        raise ValueError(
            f"{name} {split} ({by}) should hold {published} references, this file holds {len(refs)}"
            + (f", some twice (ref_id {twice[0]})" if twice else "")
            + ". Copies that put two partitions into one split do that; an average over them compares with nothing. "
            f"Take refs({by}).p or {HUB[name]}"
        )


def load_refer(
    name: str, split: str, data: Path, images: Path | None = None, by: str | None = None
) -> tuple[list[Sample], dict[str, Any]]:
    """Read one split of the RefCOCO family.

    Args:
        name: "refcoco", "refcoco+" or "refcocog". split: "val", "testA", "testB" or (refcocog) "test".
        data: folder with a folder of that name. images: COCO's train2014, folder or zip; default: beside it.
        by: partition, "unc" (refcoco, refcoco+), "umd" or "google" (refcocog); default: the first that fits.

    Returns:
        samples in order of image_id, and what the summary says of the data: partition, references, published number.

    Raises:
        FileNotFoundError, ValueError: with one line that says what is wrong and what to do.
    """
    if name not in PUBLISHED:
        raise ValueError(f"unknown data set {name!r}: choose one of {', '.join(PUBLISHED)}")
    by = by or next((p for p, splits in PUBLISHED[name].items() if split in splits), next(iter(PUBLISHED[name])))
    if by not in PUBLISHED[name]:
        raise ValueError(f"unknown partition {by!r} of {name}: choose one of {', '.join(PUBLISHED[name])}")
    if split not in PUBLISHED[name][by]:
        raise ValueError(f"unknown split {split!r} of {name} ({by}): choose one of {', '.join(PUBLISHED[name][by])}")
    folder = data / name
    locate = image_finder(images or next((p for p in (data / "train2014.zip",) if p.is_file()), data / "train2014"))
    if (folder / "instances.json").exists():
        instances, refs = read_json(folder / "instances.json"), read_pickle(folder / f"refs({by}).p")
        if not (isinstance(refs, list) and all(isinstance(r, dict) and {"split", "ref_id"} <= r.keys() for r in refs)):
            raise ValueError(f"{folder / f'refs({by}).p'} is not a list of references")
        refs = [r for r in refs if r["split"] == split]
    elif by == "google":
        raise ValueError(f"the hub copy {HUB[name]} holds the umd partition alone; google needs refs(google).p")
    else:
        instances, refs = read_parquet(folder, name, split)
    check_count(name, by, split, refs)
    if not refs:
        raise ValueError(f"{folder} has no references of split {split}")
    samples = [s for s in build_samples(instances, refs, locate, name) if s.records]
    about = {"split_by": by, "refs": len(refs), "published_refs": PUBLISHED[name][by][split]}
    return sorted(samples, key=lambda s: s.image_id), about
