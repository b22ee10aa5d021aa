"""Runs the lessons for what is built from them: explorers as pages of their own, and figures fine enough for a projector."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "out" / "lessons"
_HOOK = """
from pathlib import Path as _Path
from matplotlib_inline.backend_inline import set_matplotlib_formats as _formats
from refdiff_lite.widgets.base import Explorer as _Explorer
_formats("retina")
_found = []
def _shown(self, **_):
    path = _Path({folder!r}) / f"{name}-{{len(_found)}}.html"
    self.save_html(path)
    _found.append(path)
    print("EXPLORER", path.name, repr(self))
_Explorer._ipython_display_ = _shown
"""


def run(lesson: Path) -> Path:
    """Run a lesson once more, and keep what it made for as long as neither the lesson nor the library changes.

    Returns:
        a folder with ``lesson.ipynb``, whose figures have twice the usual resolution, the explorers as HTML, and
        ``cells.txt``: a line "number of the cell, file" for each explorer.
    """
    code = hashlib.sha256(lesson.read_bytes() + Path(__file__).read_bytes())
    for path in sorted((ROOT / "refdiff_lite").rglob("*")):
        if path.suffix in (".py", ".js", ".css"):
            code.update(path.read_bytes())
    folder = KEPT / f"{lesson.stem}-{code.hexdigest()[:12]}"
    told = folder / "cells.txt"
    if told.exists():
        return folder
    for old in KEPT.glob(f"{lesson.stem}-*"):
        shutil.rmtree(old)
    folder.mkdir(parents=True)
    notebook = nbformat.read(lesson, 4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_HOOK.format(folder=str(folder), name=lesson.stem)))
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(lesson.parent)}}).execute()
    del notebook.cells[0]
    nbformat.write(notebook, folder / "lesson.ipynb")
    lines = [
        f"{i} {line.split()[1]}\n"
        for i, cell in enumerate(notebook.cells)
        for o in cell.get("outputs", [])
        if o.output_type == "stream"
        for line in o.text.splitlines()
        if line.startswith("EXPLORER ")
    ]
    told.write_text("".join(lines))  # last: marks the folder as whole
    return folder


def explorers(folder: Path) -> dict[int, list[str]]:
    """Number of a cell -> files of its explorers, in a folder that :func:`run` made."""
    found: dict[int, list[str]] = {}
    for line in (folder / "cells.txt").read_text().splitlines():
        cell, name = line.split()
        found.setdefault(int(cell), []).append(name)
    return found
