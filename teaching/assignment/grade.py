"""Build and grade the assignment with otter-grader: ``python teaching/assignment/grade.py --help``.

``say_no.py`` is the master notebook in the layout of Otter Assign, with solutions and hidden tests. Otter does the work; this file
turns the master into a notebook, and grades many submissions with a time limit for each.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import jupytext
import typer

MASTER = Path(__file__).resolve().parent / "say_no.py"
app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)


def otter(*args: str, cwd: Path, seconds: float | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "otter", *args], cwd=cwd, capture_output=True, text=True, timeout=seconds
    )


@app.command()
def build(out: Path) -> None:
    """Write OUT/student/say_no.ipynb to hand out and OUT/autograder/, and run the hidden tests on the solution."""
    with tempfile.TemporaryDirectory() as folder:
        jupytext.write(jupytext.read(MASTER), Path(folder) / "say_no.ipynb")
        done = otter("assign", "--no-pdfs", "say_no.ipynb", str(out.resolve()), cwd=Path(folder))
    if done.returncode:
        reason = "pip install 'refdiff-lite[teach]' first" if "No module named otter" in done.stderr else done.stderr
        raise typer.BadParameter(f"otter assign failed: {reason}")
    print(f"-> {out}/student/say_no.ipynb (to hand out), {out}/autograder/ (keep it: solution and hidden tests)")


def points(submission: Path, autograder: Path, seconds: float = 600) -> tuple[dict[str, float], str]:
    """Points by question, and what failed.

    Args:
        submission: a student's notebook. autograder: the zip that ``build`` made. seconds: after these, and where
            the notebook ends its own process, there are no points.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = otter(
                "run", "--no-logo", "-a", str(autograder.resolve()), "-o", folder, str(submission.resolve()),
                cwd=Path(folder), seconds=seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {}, f"ran longer than {seconds:g} seconds and was stopped"
        results = Path(folder) / "results.json"
        if done.returncode or not results.exists():
            return {}, f"could not be graded: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}"
        tests = [t for t in json.loads(results.read_text())["tests"] if "max_score" in t]
    failed = "\n".join(t["output"] for t in tests if t["score"] < t["max_score"])
    return {t["name"]: round(float(t["score"]), 2) for t in tests}, failed


@app.command()
def grade(
    out: Annotated[Path, typer.Argument(help="the folder that build made")],
    submissions: Annotated[list[Path], typer.Argument(help="students' notebooks", exists=True, dir_okay=False)],
    seconds: Annotated[float, typer.Option(help="time limit for each")] = 600,
) -> None:
    """Grade SUBMISSIONS one after the other; points go to OUT/grades.csv, reasons to the screen."""
    zips = sorted((out / "autograder").glob("*.zip"))
    if not zips:
        raise typer.BadParameter(f"{out}/autograder holds no autograder; run build {out} first")
    questions = ("q1", "q2", "q3", "q4")
    with (out / "grades.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("submission", *questions, "total"))
        for submission in submissions:
            reached, failed = points(submission, zips[-1], seconds)
            numbers = [reached.get(q, 0) for q in questions]
            rows.writerow((submission, *numbers, sum(numbers)))
            file.flush()  # a stop halfway loses nobody's points
            print(f"{submission}: {sum(numbers):g} of 20", failed, sep="\n" if failed else "")
    print(f"-> {out}/grades.csv")


if __name__ == "__main__":
    app()
