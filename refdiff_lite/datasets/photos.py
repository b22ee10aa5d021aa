"""A few photographs of free licence, with masks drawn by hand and expressions in RefCOCO's manner: small, and honest about it."""

from __future__ import annotations

from ..files import data_dir
from .formats import read_json
from .records import Sample, build_samples


def load_photos() -> list[Sample]:
    """The bundled photographs; all of them are for reporting, nothing may be chosen on them."""
    folder = data_dir() / "photos"
    instances, refs = read_json(folder / "instances.json"), read_json(folder / "refs.json")
    return build_samples(instances, refs, lambda image: (folder / "images" / image["file_name"], None))
