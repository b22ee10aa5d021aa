"""Where the bundled data lie: beside the package in a clone, inside it in a wheel."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


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
