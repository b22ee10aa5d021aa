"""The assignment gives a right, a half right and an empty submission the points that they deserve."""

import csv
import importlib.util
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

pytestmark = pytest.mark.slow
pytest.importorskip("otter", reason="refdiff-lite[teach] is not installed")
ROOT = Path(__file__).parents[2]
WRONG = (
    "def margin(scores):\n    return max(scores)",
    "def best_threshold(there, absent):\n    return sum(there) / len(there), 1.0",
    "def absent_nouns(scenes, each=2):\n    return [sorted(s)[:each] for s in scenes]",
)


@pytest.fixture(scope="module")
def grader():
    spec = importlib.util.spec_from_file_location("grade", ROOT / "teaching" / "assignment" / "grade.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(grader, tmp_path_factory):
    out = tmp_path_factory.mktemp("assignment")
    grader.build(out)
    return out


@pytest.fixture(scope="module")
def notebooks(built):
    """The student's copy and the solution."""
    return [nbformat.read(built / which / "say_no.ipynb", 4) for which in ("student", "autograder")]


def save(student, cells, path):
    """A submission: the student's notebook with these cells, given as cells or as source."""
    made = [nbformat.v4.new_code_cell(c if isinstance(c, str) else c.source) for c in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=student.metadata), path)


def test_the_student_s_copy_holds_neither_solutions_nor_tests(notebooks):
    student, solved = (str(n) for n in notebooks)
    for word in ("SOLUTION", "assert", "HIDDEN", "ordered"):
        assert word not in student
    assert "ordered" in solved
    assert "assert" in solved
    assert student.count("    ...") == 4


def test_right_half_right_empty_and_wrong_submissions(grader, built, notebooks, tmp_path):
    student, _ = notebooks
    right, half, empty, wrong = (tmp_path / f"{name}.ipynb" for name in ("right", "half", "empty", "wrong"))
    asked, answered = ([c for c in n.cells if c.cell_type == "code"] for n in notebooks)
    answers = [c for c in answered if c.source.startswith(("def margin(", "def best_threshold("))]
    assert len(answers) == 2
    save(student, answered, right)
    save(student, ["%matplotlib inline", "import sys\nsys.exit()", "1 / 0", *asked, *answers], half)
    save(student, asked, empty)
    save(student, [*asked, *WRONG], wrong)
    done = CliRunner().invoke(grader.app, ["grade", str(built), *map(str, (right, half, empty, wrong))])
    assert done.exit_code == 0, done.output
    assert "right.ipynb: 20 of 20\n" in done.output
    assert "q2 - 1 result" in done.output  # says which case failed
    rows = list(csv.DictReader((built / "grades.csv").open()))
    got = [[float(row[k]) for k in ("q1", "q2", "q3", "q4", "total")] for row in rows]
    assert got[:3] == [[4, 5, 6, 5, 20], [4, 0, 6, 0, 10], [0, 0, 0, 0, 0]]
    assert got[3][0] <= 1
    assert got[3][1] <= 1
    assert got[3][2] <= 3


@pytest.mark.parametrize(
    ("cell", "told"), [("import os\nos._exit(0)", "could not be graded"), ("while True:\n    pass", "longer than")]
)
def test_a_submission_that_ends_or_never_ends_gets_no_points(grader, built, notebooks, tmp_path, cell, told):
    save(notebooks[0], [cell], tmp_path / "sly.ipynb")
    (autograder,) = (built / "autograder").glob("*.zip")
    points, why = grader.points(tmp_path / "sly.ipynb", autograder, seconds=20)
    assert points == {}
    assert told in why


def test_grading_without_building_first_is_refused(grader, built, tmp_path):
    done = CliRunner().invoke(grader.app, ["grade", str(tmp_path), str(built / "student" / "say_no.ipynb")])
    assert done.exit_code == 2
    assert "run build" in " ".join(done.output.split())
