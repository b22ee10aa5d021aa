"""The assignment gives a right, a half right and an empty submission the points that they deserve."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


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


def test_the_student_s_copy_holds_no_solution(built):
    student, solved = (nbformat.read(built / n / "say_no.ipynb", 4) for n in ("student", "solution"))
    text = "\n".join(c.source for c in student.cells)
    assert "SOLUTION" not in text
    assert text.count("your code here") == 4
    assert len(student.cells) == len(solved.cells)


def test_right_half_right_and_empty_submissions(grader, built, tmp_path):
    assert grader.grade(built / "solution" / "say_no.ipynb") == ({"q1": 4, "q2": 5, "q3": 6, "q4": 5}, [])
    student, solved = (nbformat.read(built / n / "say_no.ipynb", 4) for n in ("student", "solution"))
    for place, cell in enumerate(solved.cells):
        if any(f"def {name}(" in cell.source for name in ("margin", "best_threshold")):
            student.cells[place] = cell
    nbformat.write(student, tmp_path / "half.ipynb")
    assert grader.grade(tmp_path / "half.ipynb")[0] == {"q1": 4, "q2": 0, "q3": 6, "q4": 0}
    assert sum(grader.grade(built / "student" / "say_no.ipynb")[0].values()) == 0


@pytest.mark.parametrize(
    ("wrong", "question", "most"),
    [
        ("def margin(scores):\n    return max(scores)", "q1", 1),
        ("def best_threshold(there, absent):\n    return sum(there) / len(there), 1.0", "q3", 3),
        ("def absent_nouns(scenes, each=2):\n    return [sorted(s)[:each] for s in scenes]", "q2", 1),
    ],
)
def test_wrong_answers_lose_points(grader, built, tmp_path, wrong, question, most):
    notebook = nbformat.read(built / "student" / "say_no.ipynb", 4)
    notebook.cells.append(nbformat.v4.new_code_cell(wrong))
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    assert grader.grade(tmp_path / "wrong.ipynb")[0][question] <= most


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("import __main__\n__main__._holds = lambda *a: True\n__main__.run = lambda *a: ('', '')", ""),
        ("import sys\nsys.exit()", "SystemExit"),
        ("import os\nos._exit(0)", "ended the grading"),
        ("while True:\n    pass", "longer than"),
    ],
)
def test_a_submission_neither_grades_itself_nor_stops_the_grading(grader, built, tmp_path, cell, told):
    notebook = nbformat.read(built / "student" / "say_no.ipynb", 4)
    notebook.cells = [nbformat.v4.new_code_cell(cell)]
    nbformat.write(notebook, tmp_path / "sly.ipynb")
    points, wrong = grader.grade(tmp_path / "sly.ipynb", seconds=15)
    assert sum(points.values()) == 0
    assert told in " ".join(wrong)


def test_a_magic_costs_no_points(grader, built, tmp_path):
    solved = nbformat.read(built / "solution" / "say_no.ipynb", 4)
    (cell,) = (c for c in solved.cells if "def margin(" in c.source)
    cell.source = "%matplotlib inline\n!ls\n" + cell.source
    solved.cells = [c for c in solved.cells if c is cell or "import numpy" in c.source]
    nbformat.write(solved, tmp_path / "magic.ipynb")
    assert grader.grade(tmp_path / "magic.ipynb")[0]["q1"] == 4
