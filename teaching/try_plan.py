"""Try a plan against the clock: ``python teaching/try_plan.py teaching/plans/90-minutes.md``.

Runs, line by line of the plan, the cells up to the end of the section that it shows, and prints the seconds of computing beside the
minutes that the plan gives. Ends with an error if the computing of a line takes more than half of its minutes.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent


def steps(plan: Path) -> list[tuple[str, str, int]]:
    """(lesson, section, minutes) of every line of the plan's table that shows one; a section "–" is the whole lesson."""
    found, head = [], []
    for line in plan.read_text(encoding="utf-8").splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")] if line.startswith("|") else []
        if "lesson" in cells and "section" in cells:
            head = cells
        elif head and len(cells) == len(head):
            lesson, section, minutes = (cells[head.index(name)] for name in ("lesson", "section", "minutes"))
            if re.fullmatch(r"\d\d", lesson):
                begin, end = map(int, minutes.split("–"))
                found.append((lesson, section, end - begin))
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


def shown(plan: Path) -> dict[str, list[tuple[str, int, int]]]:
    """For each notebook that a plan shows: (section, cells up to its end, minutes), in the plan's order."""
    found: dict[str, list[tuple[str, int, int]]] = {}
    for lesson, section, minutes in steps(plan):
        (path,) = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
        found.setdefault(path.name, []).append((section, cells_to_show(nbformat.read(path, 4), section), minutes))
    return found


def main(plan: Path) -> None:
    total, late = 0.0, []
    for name, lines in shown(plan).items():
        notebook = nbformat.read(ROOT / "notebooks" / name, 4)
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "notebooks")}})
        done = 0
        start = time.perf_counter()
        with client.setup_kernel():
            for section, count, minutes in lines:
                for i in range(done, count):
                    client.execute_cell(notebook.cells[i], i)
                seconds = time.perf_counter() - start
                print(f"{name}: {section}: {seconds:.0f} s of {minutes} minutes", flush=True)
                late += [section] if seconds > 30 * minutes else []
                total, done, start = total + seconds, max(done, count), time.perf_counter()
    print(f"{plan.name}: {total:.0f} s of computing")
    if late:
        raise SystemExit(f"more than half of their minutes are computing: {', '.join(late)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
