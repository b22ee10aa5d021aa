"""Build and grade the assignment: ``python teaching/assignment/grade.py build OUT`` or ``... grade SUBMISSION.ipynb``.

The hidden tests in ``tests/`` are in the format of otter-grader (and of OK before it): a dictionary ``test`` with suites of
doctests. Otter can grade with them as they are; this file needs nothing but the package itself.
"""

from __future__ import annotations

import doctest
import json
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from IPython.core.inputtransformer2 import TransformerManager

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


_WORKER = """
import contextlib, io, json, sys
asked, space = json.load(sys.stdin), {"__name__": "submission"}
class _Shell:
    def __getattr__(self, name):
        return lambda *a, **k: None  # magics do nothing here
space["get_ipython"] = _Shell
def run(source, kind, where):
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(source, "submission", kind), where)
    except BaseException as error:
        return None, f"{type(error).__name__}: {error}"
    return out.getvalue(), ""
wrong = [f"cell {i}: {why}" for i, cell in asked["cells"] if (why := run(cell, "exec", space)[1])]
answers = []
for case in asked["cases"]:
    own = dict(space)
    answers.append([run(source, "single", own)[0] for source in case])
print("\\n" + json.dumps({"answers": answers, "wrong": wrong}))
"""


def grade(submission: Path, seconds: float = 600) -> tuple[dict[str, float], list[str]]:
    """Points by question, and what went wrong in which cell; cells that fail are passed over.

    The submission runs in a process of its own, in an empty folder. It is given the questions of the hidden tests and never the
    answers: those are compared here.
    """
    clean = TransformerManager().transform_cell
    cells = [(i, clean(c.source)) for i, c in enumerate(nbformat.read(submission, 4).cells) if c.cell_type == "code"]
    tests = [runpy.run_path(str(path))["test"] for path in sorted((HERE / "tests").glob("q*.py"))]
    cases = [[doctest.DocTestParser().get_examples(c["code"]) for s in t["suites"] for c in s["cases"]] for t in tests]
    asked = {"cells": cells, "cases": [[e.source for e in case] for some in cases for case in some]}
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-c", _WORKER],
                input=json.dumps(asked),
                capture_output=True,
                text=True,
                cwd=folder,
                timeout=seconds,
            )
        told = json.loads(done.stdout.rstrip("\n").rpartition("\n")[2])
        answers, wrong = told["answers"], told["wrong"]
    except subprocess.TimeoutExpired:
        answers, wrong = [], [f"it ran longer than {seconds:g} seconds and was stopped"]
    except (ValueError, KeyError):
        answers, wrong = [], [f"it ended the grading: {done.stderr.strip()[-200:] or 'no reason given'}"]
    points, place = {}, 0
    for test, some in zip(tests, cases, strict=True):
        mine = answers[place : place + len(some)]
        place += len(some)
        right = sum(
            [e.want for e in case] == [got or "" for got in said] for case, said in zip(some, mine, strict=False)
        )
        points[test["name"]] = round(test["points"] * right / len(some), 2)
    return points, wrong


def main() -> None:
    what, path = sys.argv[1], Path(sys.argv[2])
    if what == "build":
        build(path)
        print(f"-> {path}/student/say_no.ipynb, {path}/solution/say_no.ipynb")
        return
    points, wrong = grade(path)
    for line in wrong:
        print(line)
    for name, reached in points.items():
        print(f"{name}: {reached:g}")
    print(f"total: {sum(points.values()):g} of 20")


if __name__ == "__main__":
    main()
