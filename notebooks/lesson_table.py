"""The lessons in numbers: ``python notebooks/lesson_table.py [01 02 …]`` (``make lesson-table``) runs each afresh and counts.

CPU seconds are the kernel's own, so they hardly hang on what else the machine does; wall seconds do.
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

from build_notebooks import CHECKED, execute, lessons, notebook, set_environment, tagged

COLUMNS = ("code cells", "words", "figures", "exercises", "checked cells")


def counts(nb: Any) -> tuple[int, ...]:
    """A run notebook's :data:`COLUMNS`; words are those of its prose, a figure is a picture that a cell left."""
    code = [c for c in nb.cells if c.cell_type == "code"]
    words = sum(len(c.source.split()) for c in nb.cells if c.cell_type == "markdown")
    figures = sum("image/png" in o.get("data", {}) for c in code for o in c.outputs)
    return len(code), words, figures, sum(tagged(c, "exercise") for c in code), sum(tagged(c, CHECKED) for c in code)


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
