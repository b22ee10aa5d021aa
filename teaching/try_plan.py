"""Try a plan against the clock: ``python teaching/try_plan.py teaching/plans/90-minutes.md``.

Runs, lesson by lesson, the cells up to the end of each section that the plan shows, and prints the seconds of computing.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent


def steps(plan: Path) -> list[tuple[str, str]]:
    """(lesson, section) of every line of the plan's table that shows one; a section "–" is the whole lesson."""
    found, head = [], []
    for line in plan.read_text(encoding="utf-8").splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")] if line.startswith("|") else []
        if "lesson" in cells and "section" in cells:
            head = cells
        elif head and len(cells) == len(head):
            lesson, section = cells[head.index("lesson")], cells[head.index("section")]
            if re.fullmatch(r"\d\d", lesson):
                found.append((lesson, section))
    return found


def cells_to_show(notebook: nbformat.NotebookNode, section: str) -> int:
    """How many cells a lesson has up to the end of a section.

    Raises:
        ValueError: it has no such section.
    """
    inside = section == "–"
    for i, cell in enumerate(notebook.cells):
        heads = re.findall(r"^## (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        if inside and heads and section != "–":
            return i
        inside = inside or section in heads
    if not inside:
        raise ValueError(f"the lesson has no section {section!r}")
    return len(notebook.cells)


def shown(plan: Path) -> dict[str, int]:
    """The notebooks that a plan shows, in its order, and how many of their cells."""
    found: dict[str, int] = {}
    for lesson, section in steps(plan):
        (path,) = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
        found[path.name] = max(found.get(path.name, 0), cells_to_show(nbformat.read(path, 4), section))
    return found


def main(plan: Path) -> None:
    total = 0.0
    for name, count in shown(plan).items():
        notebook = nbformat.read(ROOT / "notebooks" / name, 4)
        notebook.cells = notebook.cells[:count]
        start = time.perf_counter()
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
        total += time.perf_counter() - start
        print(f"{name}: {count} cells, {time.perf_counter() - start:.0f} s", flush=True)
    print(f"{plan.name}: {total:.0f} s of computing")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
