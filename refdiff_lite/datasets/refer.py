"""RefCOCO, RefCOCO+ and RefCOCOg: original pickles or the hub's parquet copies, images from a folder or a zip.

Nothing is downloaded: the annotations carry no clear licence. ``DATA/refcoco/`` (``refcoco+``, ``refcocog``) holds
either ``instances.json`` with ``refs(unc).p`` and so on, or the parquet files of ``jxu124/refcoco`` (``refcocoplus``,
``refcocog``). The images are COCO's train2014.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .formats import open_zip, parse_json, read_json
from .pickles import read_pickle
from .records import Sample, build_samples

PUBLISHED: dict[str, dict[str, dict[str, int]]] = {
    "refcoco": {"unc": {"val": 3811, "testA": 1975, "testB": 1810}},
    "refcoco+": {"unc": {"val": 3805, "testA": 1975, "testB": 1798}},
    "refcocog": {"umd": {"val": 2573, "test": 5023}, "google": {"val": 5000}},
}
"""Number of references per data set, partition (``splitBy``) and split."""
HUB = {"refcoco": "jxu124/refcoco", "refcoco+": "jxu124/refcocoplus", "refcocog": "jxu124/refcocog"}
_COLUMNS = ["ref_id", "ann_id", "image_id", "split", "sentences", "raw_anns", "raw_image_info"]
MAX_ROWS, MAX_UNPACKED = 100_000, 2**30
"""Most rows, and most bytes unpacked, of a parquet file that is read."""


def read_parquet(folder: Path, name: str, split: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(COCO instances, references) of one split of a hub copy. It knows only the objects that are referred to.

    An image or object that cannot be read is left out, so that its references are rows with a problem.

    Raises:
        FileNotFoundError, ValueError: pyarrow is missing; no such split; damaged; another layout.
    """
    stem = {"val": "validation", "testA": "test"}.get(split, split)
    files = sorted(p for place in (folder, folder / "data") for p in place.glob(f"{stem}-*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} has neither instances.json nor {stem}-*.parquet; see {HUB[name]} on the hub")
    rows = [row for path in files for row in _rows(path, name)]
    if odd := {str(r["split"])[:20] for r in rows} - {split, stem}:
        raise ValueError(f"{files[0]} also holds references of {', '.join(sorted(odd))}, not of {split} alone")
    images, objects = {}, {}
    for row in rows:
        image, entry = _parsed(row["raw_image_info"]), _parsed(row["raw_anns"])
        if image and isinstance(row["image_id"], int):
            images.setdefault(row["image_id"], image | {"id": row["image_id"]})
        if entry and isinstance(row["ann_id"], int):
            objects.setdefault(row["ann_id"], entry | {"id": row["ann_id"], "image_id": row["image_id"]})
    kinds = {i for a in objects.values() if type(i := a.get("category_id")) is int}
    categories = [{"id": i, "name": f"category {i}"} for i in sorted(kinds)]
    return {"images": list(images.values()), "annotations": list(objects.values()), "categories": categories}, rows


def _rows(path: Path, name: str) -> list[dict[str, Any]]:
    """The references in one parquet file."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError('parquet files need one package more: pip install "refdiff-lite[parquet]"') from error
    try:
        with parquet.ParquetFile(path) as file:
            missing, many = set(_COLUMNS) - set(file.schema_arrow.names), file.metadata.num_rows
            groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
            fits = many <= MAX_ROWS and sum(g.total_byte_size for g in groups) <= MAX_UNPACKED
            rows = file.read(_COLUMNS).to_pylist() if fits and not missing else []
    except Exception as error:  # pyarrow's errors have many bases
        raise ValueError(f"{path} is damaged or no parquet file ({str(error)[:200]}); download it again") from error
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(sorted(missing))}: this is not the layout of {HUB[name]}. Copies such as "
            "lmms-lab/RefCOCO also mix the partitions of UNC or UMD with Google's"
        )
    if not fits:
        raise ValueError(f"{path} unpacks to {many} rows, more than any split of {name} has")
    return rows


def _parsed(text: Any) -> dict[str, Any] | None:
    """A dictionary that a cell holds as JSON; None if it holds none."""
    try:
        found = parse_json(text)
    except (ValueError, TypeError):
        return None
    return found if isinstance(found, dict) else None


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
    numbers = Counter(r["ref_id"] for r in refs if isinstance(r["ref_id"], (int, str)))
    twice = [i for i, n in numbers.items() if n > 1]
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
            raise ValueError(f"{folder / f'refs({by}).p'} is not a list of references with a split and a ref_id")
        refs = [r for r in refs if r["split"] == split]
    elif by == "google":
        raise ValueError(f"the hub copy {HUB[name]} holds the umd partition alone; google needs refs(google).p")
    else:
        instances, refs = read_parquet(folder, name, split)
    check_count(name, by, split, refs)
    if not refs:
        raise ValueError(f"{folder} has no references of split {split}")
    samples = build_samples(instances, refs, locate, name)
    problems = [s.problem or r.problem for s in samples for r in s.records if s.problem or r.problem]
    if len(problems) == sum(len(s.records) for s in samples):
        raise ValueError(f"not one sentence in {folder} can be answered; the first: {problems[0]}")
    about = {"split_by": by, "refs": len(refs), "published_refs": PUBLISHED[name][by][split], "problems": len(problems)}
    return sorted(samples, key=lambda s: s.image_id), about
