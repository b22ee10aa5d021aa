"""The lessons: they run, their builds are in step with their sources, and their checks catch wrong answers."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import build_notebooks as build
import lesson_table
import matplotlib as mpl
import nbformat
import pytest

import refdiff_lite
from refdiff_lite.checks import Check, CheckFailed

mpl.use("Agg")
ROOT = Path(__file__).parents[1]
LESSONS, TOUR = build.lessons(), build.tour()
EVERY = pytest.mark.parametrize("lesson", LESSONS, ids=lambda x: x.name)
ALL = pytest.mark.parametrize("lesson", [*LESSONS, TOUR], ids=lambda x: x.name)


def built(lesson, exercises=False):
    return nbformat.read(build.HERE / ("exercises" if exercises else "") / f"{lesson.name}.ipynb", as_version=4)


def code(lesson):
    return [c for c in lesson.cells() if c.cell_type == "code"]


def check_module(lesson):
    return importlib.import_module(f"refdiff_lite.checks.{lesson.name[3:]}")


def checks_of(lesson):
    return {n: c for n, c in vars(check_module(lesson)).items() if isinstance(c, Check)}


CHECKS = [pytest.param(c, id=f"{x.name}-{n}") for x in LESSONS for n, c in checks_of(x).items()]


# builds and sources


BUILT = pytest.mark.parametrize(
    ("lesson", "exercises"),
    [(lesson, exercises) for lesson in LESSONS for exercises in (False, True)] + [(TOUR, False)],
    ids=lambda x: x.name if isinstance(x, build.Lesson) else "exercises" if x else "lesson",
)


@BUILT
def test_builds_are_in_step_with_their_source(lesson, exercises):
    """Compared by text, not by file times; on failure: make notebooks."""
    fresh, stored = build.notebook(lesson, exercises), built(lesson, exercises)
    assert stored.metadata == fresh.metadata
    assert [(c.id, c.cell_type, c.source, c.metadata) for c in stored.cells] == [
        (c.id, c.cell_type, c.source, c.metadata) for c in fresh.cells
    ]


def test_syllabus_is_in_step_with_the_headers():
    assert (build.HERE / "README.md").read_text(encoding="utf-8") == build.readme()


def test_no_build_without_a_source():
    names = {lesson.name for lesson in LESSONS}
    assert {p.stem for p in build.HERE.glob("*.ipynb")} == names | {TOUR.name}
    assert {p.stem for p in build.HERE.glob("exercises/*.ipynb")} == names


@ALL
def test_stored_outputs(lesson):
    """nbval passes a checked cell without an output, so that is asserted here."""
    cells = [c for c in built(lesson).cells if c.cell_type == "code"]
    checked = [c for c in cells if build.tagged(c, build.CHECKED)]
    assert len(checked) >= (2 if lesson is TOUR else 6)
    for cell in checked:
        assert any(o.output_type == "stream" and o.text.strip() for o in cell.outputs), cell.source
    assert not [o for c in cells for o in c.outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert not [c.source for c in cells for o in c.outputs if "<Axes" in o.get("data", {}).get("text/plain", "")]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))


def test_every_explorer_of_the_tour_has_its_still():
    """What GitHub shows where the widget cannot run."""
    pictures = {c.source.split("display(")[1].rstrip(")"): [o for o in c.outputs if "image/png" in o.get("data", {})]
                for c in built(TOUR).cells if "display(" in c.source}  # fmt: skip
    assert pictures.keys() == {"attention", "playground", "inversion", "gallery"}
    assert all(len(found) == 1 for found in pictures.values())
    assert "widget-view" not in nbformat.writes(built(TOUR))


@BUILT
def test_no_notebook_is_large(lesson, exercises):
    path = build.HERE / ("exercises" if exercises else "") / f"{lesson.name}.ipynb"
    assert path.stat().st_size < 1_000_000


@ALL
def test_cells_are_short(lesson):
    assert [c.source for c in code(lesson) if len(c.source.splitlines()) > 40] == []


def test_set_up_cell_is_the_same_everywhere():
    nbs = [built(lesson, exercises) for lesson in LESSONS for exercises in (False, True)] + [built(TOUR)]
    assert {nb.cells[1].source for nb in nbs} == {build.SETUP}
    assert {lesson.cells()[0].source for lesson in [*LESSONS, TOUR]} == {LESSONS[0].cells()[0].source}
    assert build.SETUP.count("PRESET =") == 1
    short = [line for line in LESSONS[0].cells()[0].source.splitlines() if line]
    assert all(line in build.SETUP for line in short)
    others = [c for nb in nbs for c in nb.cells[2:] if c.cell_type == "code" and "PRESET =" in c.source]
    assert others == []


# links


def prose(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")


NOTEBOOKS = [*build.HERE.glob("*.ipynb"), *build.HERE.glob("exercises/*.ipynb")]  # no editor's checkpoints
PAGES = [ROOT / "README.md", *NOTEBOOKS, *build.HERE.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_badges_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        in_colab = re.fullmatch(r"https://colab\.research\.google\.com/github/([^/]+/[^/]+)/blob/main/(.+)", target)
        if in_colab:
            assert build.REPOSITORY.endswith(f"/{in_colab[1]}")
            assert ROOT / in_colab[2] == page
        elif not target.startswith(("https://", "#")):
            assert (page.parent / target.split("#")[0]).exists(), target


def test_the_repositorys_address_stands_in_one_place():
    name = build.REPOSITORY.split("github.com/")[1]
    files = [p for p in ROOT.iterdir() if p.suffix in (".md", ".toml", ".cff", ".yml") or p.name == "Makefile"]
    for folder, ends in (
        ("refdiff_lite", "py"),
        ("notebooks", "py"),
        ("notebooks", "md"),
        ("docs", "md"),
        ("tests", "py"),
    ):
        files += (ROOT / folder).glob(f"**/*.{ends}")
    assert [p.name for p in files if f"github.com/{name}" in p.read_text(encoding="utf-8")] == ["pyproject.toml"]


def test_glossary_names_exist():
    for dotted in set(
        re.findall(r"`((?:refdiff_lite|RefDiffConfig|Scene)\.[\w.]+)`", prose(ROOT / "docs/glossary.md"))
    ):
        module, *rest = dotted.removeprefix("refdiff_lite.").split(".")
        thing = refdiff_lite
        for name in (module, *rest):
            if not hasattr(thing, name) and name not in getattr(thing, "__dataclass_fields__", {}):
                importlib.import_module(f"{thing.__name__}.{name}")
            thing = getattr(thing, name, None)


# numbers


def test_memory_in_lesson_9_is_what_the_benchmark_counted():
    """Typed there, for an installed package has no benchmarks/."""
    source = (build.HERE / "09_on_a_gpu.py").read_text(encoding="utf-8")
    typed = ast.literal_eval(re.search(r"^ACTIVATIONS = (\{.*?\})$", source, re.M | re.S)[1])
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in readme.splitlines() if line.startswith("|")]
    counted: dict = {}
    for name, _, *cells in (row for row in rows if len(row) == 4):
        numbers = tuple(int(re.match(r"\d+", c)[0]) if c[:1].isdigit() else 0 for c in cells)
        counted.setdefault(re.split(r"[,']", name)[0], numbers)
    assert typed == {name: counted[name] for name in typed}


def test_lesson_table_counts_what_a_lesson_has():
    nb = built(LESSONS[0])
    cells, words, figures, exercises, checked = lesson_table.counts(nb)
    text = (build.HERE / f"{LESSONS[0].name}.ipynb").read_text(encoding="utf-8")
    assert cells == len(code(LESSONS[0]))
    assert words == len(re.findall(r"\S+", prose(build.HERE / f"{LESSONS[0].name}.ipynb")))
    assert figures == text.count('"image/png"') > 0
    assert (exercises, checked) == tuple(text.count(f'"{tag}"') for tag in ("exercise", build.CHECKED))


# exercises


def exercises_of(nb):
    return [i for i, c in enumerate(nb.cells) if build.tagged(c, "exercise")]


@EVERY
def test_exercises_follow_the_grammar(lesson):
    nb, student = built(lesson), built(lesson, exercises=True)
    places = exercises_of(nb)
    assert len(places) >= 3
    assert exercises_of(student) == places
    for number, place in enumerate(places, start=1):
        task = nb.cells[place - 1].source
        assert re.search(rf"^### Exercise {lesson.number}\.{number} · .+$", task, re.M), task
        assert re.search(r"\*\*Difficulty\*\* (?=.{5} )●+○* · \*\*Time\*\* \d+ minutes", task), task
        assert "<details><summary>Hint</summary>\n\n" in task
        assert "checks.check_" in nb.cells[place].source
        assert "SOLUTION" not in nb.cells[place].source
        stub = student.cells[place].source
        assert "NotImplementedError" in stub or "= ...  # your answer" in stub
        assert not [c for c in student.cells if c.get("outputs")]
    used = set(re.findall(r"checks\.(check_\w+)", "\n".join(c.source for c in code(lesson))))
    assert used == set(checks_of(lesson))


@EVERY
def test_an_exercise_filled_in_is_the_lesson(lesson):
    """So nbval's run of the lesson is a run of the exercises with every solution in place."""
    nb, student = built(lesson), built(lesson, exercises=True)
    for place in exercises_of(student):
        student.cells[place].source = nb.cells[place].source
    assert [c.source for c in student.cells if c.cell_type == "code"] == [
        c.source for c in nb.cells if c.cell_type == "code"
    ]


@EVERY
def test_unfilled_exercises_fail_with_a_helpful_line_and_solutions_pass(lesson, capsys):
    imports = code(lesson)[1].source
    for solved, student in zip(built(lesson).cells, built(lesson, exercises=True).cells, strict=True):
        if build.tagged(student, "exercise"):
            scope: dict = {}
            exec(imports, scope)
            with pytest.raises(CheckFailed, match="not filled in yet: replace the"):
                exec(student.source, scope)
            exec(solved.source, scope)
            assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_accepts_the_right_answer_and_names_each_mistake(check, capsys):
    check(check.right)
    assert capsys.readouterr().out == f"✓ {check.done}\n"
    assert len(check.mistakes) >= 2
    for message, mistake in check.mistakes.items():
        with pytest.raises(CheckFailed) as failed:
            check(mistake)
        assert str(failed.value) == message
        assert "\n" not in message


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_rejects_nothing_and_nonsense(check):
    wrong = [lambda *_: None, lambda *_: "?", 3] if callable(check.right) else [None, "?", [1, 2, 3, 4, 5, 6, 7]]
    for answer in wrong:
        with pytest.raises(CheckFailed) as failed:
            check(answer)
        assert "\n" not in str(failed.value)


def test_a_failed_check_shows_one_line_without_a_traceback():
    assert CheckFailed("why")._render_traceback_() == ["✗ why"]


# the run


@pytest.mark.slow
@ALL
def test_the_lesson_runs(lesson):
    """Every cell runs, checked cells print what is stored."""
    command = "--nbval-lax --nbval-current-env --nbval-cell-timeout=300 -p no:cacheprovider -q".split()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *command, str(build.HERE / f"{lesson.name}.ipynb")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
