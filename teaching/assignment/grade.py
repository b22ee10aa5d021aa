"""Build and grade the assignment: ``python teaching/assignment/grade.py build OUT`` or ``... grade SUBMISSION.ipynb``.

The hidden tests in ``tests/`` are in the format of otter-grader (and of OK before it): a dictionary ``test`` with suites of
doctests. Otter can grade with them as they are; this file needs nothing but the package itself.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent
_SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?### END SOLUTION\n?", re.MULTILINE | re.DOTALL)


def build(out: Path) -> None:
    """Write ``student/say_no.ipynb`` without solutions, and ``solution/say_no.ipynb``."""
    notebook = jupytext.read(HERE / "say_no.py")
    for name in ("solution", "student"):
        made = nbformat.from_dict(notebook)
        if name == "student":
            for cell in made.cells:
                cell.source = _SOLUTION.sub(
                    r"\1raise NotImplementedError('your code here')\n", cell.source + "\n"
                ).rstrip("\n")
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(made, folder / "say_no.ipynb")


def grade(submission: Path) -> dict[str, float]:
    """Points by question. Cells that fail are passed over, so that later ones still count."""
    space: dict[str, Any] = {"__name__": "submission"}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in nbformat.read(submission, 4).cells:
            if cell.cell_type == "code":
                with contextlib.suppress(Exception):
                    exec(compile(cell.source, str(submission), "exec"), space)
    points = {}
    for path in sorted((HERE / "tests").glob("q*.py")):
        test = runpy.run_path(str(path))["test"]
        cases = [case for suite in test["suites"] for case in suite["cases"]]
        points[test["name"]] = round(
            test["points"] * sum(_holds(case["code"], space) for case in cases) / len(cases), 2
        )
    return points


def _holds(code: str, space: dict[str, Any]) -> bool:
    example = doctest.DocTestParser().get_doctest(code, dict(space), "case", None, 0)
    return doctest.DocTestRunner(verbose=False).run(example, out=lambda _: None).failed == 0


def main() -> None:
    what, path = sys.argv[1], Path(sys.argv[2])
    if what == "build":
        build(path)
        print(f"-> {path}/student/say_no.ipynb, {path}/solution/say_no.ipynb")
        return
    points = grade(path)
    for name, reached in points.items():
        print(f"{name}: {reached:g}")
    print(f"total: {sum(points.values()):g} of 20")


if __name__ == "__main__":
    main()
