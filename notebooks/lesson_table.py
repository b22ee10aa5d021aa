"""The lessons in numbers: ``python notebooks/lesson_table.py [01 02 …]`` (``make lesson-table``) runs each afresh and counts.

CPU seconds are the kernel's own, so they hardly hang on what else the machine does; wall seconds do.
"""

from __future__ import annotations

import re
import resource
import sys
import time
from typing import Any

from build_notebooks import PICTURES, execute, lessons, notebook, set_environment, tagged

COLUMNS = ("code cells", "words", "figures", "exercises", "by rating", "claims")


def counts(nb: Any) -> tuple[int | str, ...]:
    """A run notebook's :data:`COLUMNS`.

    Words are those of its prose, a figure is a picture that a cell left, ratings are counts of one dot to five, and a
    claim is a line that :func:`refdiff_lite.lesson.claim` printed.
    """
    code = [c for c in nb.cells if c.cell_type == "code"]
    prose = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    figures = sum(kind in o.get("data", {}) for c in code for o in c.outputs for kind in PICTURES)
    ratings = [dots.count("●") for dots in re.findall(r"\*\*Difficulty\*\* ([●○]+)", prose)]
    by_rating = " ".join(str(ratings.count(dots)) for dots in range(1, 6))
    claims = sum(o.text.count("✓ ") for c in code if not tagged(c, "exercise") for o in c.outputs if "text" in o)
    return len(code), len(prose.split()), figures, sum(tagged(c, "exercise") for c in code), by_rating, claims


def cpu_seconds() -> float:
    """Of all kernels that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(wanted: list[str]) -> None:
    set_environment()
    print(f"| lesson | {' | '.join(COLUMNS)} | CPU s | wall s |\n|---|{'---|' * (len(COLUMNS) + 2)}")
    for lesson in lessons():
        if not wanted or lesson.name.startswith(tuple(wanted)):
            nb, cpu, wall = notebook(lesson), cpu_seconds(), time.perf_counter()
            execute(nb)
            row = (lesson.name, *counts(nb), round(cpu_seconds() - cpu), round(time.perf_counter() - wall))
            print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
