"""Files: the bundled data, the cache, and writing so that a file is whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
MAX_PIXELS = 50_000_000
"""Largest picture or mask that is read."""


def data_dir() -> Path:
    """Folder of the bundled data, for a clone, an editable install and a wheel alike.

    Raises:
        FileNotFoundError: neither place has it, so the installation is incomplete.
    """
    for candidate in (_PACKAGE / "_data", _PACKAGE.parent / "data"):
        if (candidate / "toyref").is_dir():
            return candidate
    raise FileNotFoundError(
        f"The bundled data are in neither {_PACKAGE / '_data'} nor {_PACKAGE.parent / 'data'}; "
        "install refdiff-lite again from a wheel or from a clone."
    )


def cache_dir() -> Path:
    """Folder for what can be computed again: ``REFDIFF_CACHE``, else ``refdiff-lite`` in the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("REFDIFF_CACHE") or home / "refdiff-lite")


def check_folder(folder: Path) -> Path:
    """Make an output folder and try to write in it, so that a failure comes before the long work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(
            f"cannot write to the folder {folder} ({error.strerror}); choose another with --out"
        ) from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a new temporary file beside ``path``, then rename it: the file is whole or not there.

    The temporary file has a name of its own, so that several writers never meet and no link is followed.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    partial = Path(name)
    try:
        write(partial)
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)  # mkstemp's files are for their owner alone
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_whole(path, lambda p: p.write_text(text, encoding="utf-8"))
