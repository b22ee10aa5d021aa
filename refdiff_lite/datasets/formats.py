"""JSON and zips, read so that nothing but data comes out, and no more than fits into memory."""

from __future__ import annotations

import json
from functools import lru_cache
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZipFile

MAX_JSON = 512 * 2**20
"""Largest JSON file that is read, in bytes; that of RefCOCO has about 100 MiB."""
MAX_MEMBER = 200 * 2**20
"""Largest image file that is taken out of a zip, in bytes."""


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
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path} is larger than {MAX_JSON // 2**20} MiB; are these the annotations?")
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not sound JSON ({error}); copy or download it again") from error


def open_zip(path: Path) -> ZipFile:
    """A zip, kept open: reading the list of COCO's 82,783 members takes a second.

    Raises:
        ValueError: it is no zip, or it names a member outside itself.
    """
    about = path.stat()
    return _open_zip(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1)
def _open_zip(path: Path, *version: int) -> ZipFile:
    try:
        archive = ZipFile(path)
    except Exception as error:  # BadZipFile, OSError, struct.error, ... by the kind of damage
        raise ValueError(f"{path} is not a readable zip ({error}); copy or download it again") from error
    for name in archive.namelist():
        if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
            raise ValueError(f"{path} is refused: its member {name!r} points outside of it")
    return archive


def read_member(path: Path, member: str) -> bytes:
    """A file out of a zip. Raises ValueError if it is damaged or unpacks to more than :data:`MAX_MEMBER`."""
    archive = open_zip(path)
    try:
        if archive.getinfo(member).file_size > MAX_MEMBER:
            raise ValueError(f"it unpacks to more than {MAX_MEMBER // 2**20} MiB")
        return archive.read(member)
    except Exception as error:  # what each method of compression lets out
        raise ValueError(f"{member} in {path} cannot be unpacked ({error})") from error
