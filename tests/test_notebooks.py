"""The lessons: they run, their builds are in step with their sources, and their checks catch wrong answers."""

import ast
import importlib
import keyword
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import build_notebooks as build
import lesson_table
import matplotlib as mpl
import nbformat
import pytest

import refdiff_lite
from refdiff_lite.checks import Check, CheckFailed, Guess

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


def guesses_of(lesson):
    return {n: g for n, g in vars(check_module(lesson)).items() if isinstance(g, Guess)}


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
    for cell in [c for c in cells if build.tagged(c, build.CHECKED)]:
        assert any(o.output_type == "stream" and o.text.strip() for o in cell.outputs), cell.source
    assert not [o for c in cells for o in c.outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert not [c.source for c in cells for o in c.outputs if "<Axes" in o.get("data", {}).get("text/plain", "")]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))


@ALL
def test_every_picture_has_a_text_for_those_who_cannot_see_it(lesson):
    for cell in built(lesson).cells:
        for output in cell.get("outputs", []):
            for kind in set(build.PICTURES) & output.get("data", {}).keys():
                assert len(output.metadata.get(kind, {}).get("alt", "")) >= 20, cell.source


@EVERY
def test_every_claim_is_true_where_it_is_printed(lesson):
    """A claim that fails with the toy networks stops the build; here: there are some, and none was stored as failing."""
    lines = [line for c in built(lesson).cells for o in c.get("outputs", []) for line in o.get("text", "").splitlines()]
    assert "lesson.claim(" in "\n".join(c.source for c in code(lesson))
    assert not [line for line in lines if line.startswith("✗")]


def test_pictures_keep_their_colours():
    """Two pictures that 256 colours would spoil: a smooth one goes to JPEG, a plain one stays exact."""
    import base64
    import io

    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    rainbow = np.stack(np.broadcast_arrays(np.arange(256)[:, None], np.arange(256), 128), -1).astype(np.uint8)
    grainy = np.clip(rainbow + rng.normal(0, 6, rainbow.shape), 0, 255).astype(np.uint8)
    plain = np.kron(rng.integers(0, 256, (10, 10, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    for pixels, kind, error in ((grainy, "image/jpeg", 6), (plain, "image/png", 0)):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        made, encoded = build.small_picture(base64.b64encode(buffer.getvalue()).decode())
        assert made == kind
        back = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"), float)
        assert np.abs(back - pixels).mean() <= error
        assert np.abs(back.mean((0, 1)) - pixels.mean((0, 1))).max() <= 1


def test_lessons_named_in_prose_are_links():
    text = build.link_lessons(
        "Lesson 3 shows it; [lesson 4](x) and lesson 99 are left, and so is lesson 2.", LESSONS[2]
    )
    assert text.startswith(f"[Lesson 3]({LESSONS[3].name}.ipynb) shows it; [lesson 4](x) and lesson 99")
    assert text.endswith("so is lesson 2.")


def test_every_explorer_of_the_tour_has_its_still():
    """What GitHub shows where the widget cannot run."""
    pictures = {c.source.split("display(")[1].rstrip(")"): [o for o in c.outputs if set(build.PICTURES) & o.get("data", {}).keys()]
                for c in built(TOUR).cells if "display(" in c.source}  # fmt: skip
    assert pictures.keys() == {"attention", "comparison", "text", "playground", "inversion", "gallery"}
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
    cells, words, figures, exercises, ratings, claims = lesson_table.counts(nb)
    text = (build.HERE / f"{LESSONS[0].name}.ipynb").read_text(encoding="utf-8")
    assert cells == len(code(LESSONS[0]))
    assert words == len(re.findall(r"\S+", prose(build.HERE / f"{LESSONS[0].name}.ipynb")))
    assert figures == sum(text.count(f'"{kind}": "') for kind in build.PICTURES) > 0
    assert exercises == text.count('"exercise"') == sum(map(int, ratings.split()))
    assert 0 < claims <= text.count("lesson.claim(") + 20


# exercises


def tagged_exercises(nb):
    return [i for i, c in enumerate(nb.cells) if build.tagged(c, "exercise")]


@EVERY
def test_exercises_follow_the_grammar(lesson):
    nb, student = built(lesson), built(lesson, exercises=True)
    places = tagged_exercises(nb)
    assert len(places) >= 3
    assert tagged_exercises(student) == places
    for number, place in enumerate(places, start=1):
        task = nb.cells[place - 1].source
        assert re.search(rf"^### Exercise {lesson.number}\.{number} · .+$", task, re.M), task
        assert re.search(r"\*\*Difficulty\*\* (?=.{5} )●+○* · \*\*Time\*\* \d+ minutes", task), task
        assert "<details><summary>Hint</summary>\n\n" in task
        assert re.search(r"checks\.(check|guess)_", nb.cells[place].source)
        assert "SOLUTION" not in nb.cells[place].source
        stub = student.cells[place].source
        assert "raise lesson.Todo(" in stub or "= ...  # your answer" in stub
        assert build.tagged(student.cells[place], "raises-exception")
        assert not [c for c in student.cells if c.get("outputs")]
    used = set(re.findall(r"checks\.((?:check|guess)_\w+)", "\n".join(c.source for c in code(lesson))))
    assert used == checks_of(lesson).keys() | guesses_of(lesson).keys()
    tasks = "\n".join(nb.cells[place - 1].source for place in places)
    assert guesses_of(lesson), "predict, then measure"
    assert "Repair" in tasks
    assert "**Difficulty** ●●●●" in tasks


@EVERY
def test_an_exercise_filled_in_is_the_lesson(lesson):
    """So nbval's run of the lesson is a run of the exercises with every solution in place."""
    nb, student = built(lesson), built(lesson, exercises=True)
    for place in tagged_exercises(student):
        student.cells[place].source = nb.cells[place].source
    assert [c.source for c in student.cells if c.cell_type == "code"] == [
        c.source for c in nb.cells if c.cell_type == "code"
    ]


def solutions(lesson):
    """The solution blocks of a lesson's exercises, by the place of their cells."""
    found = {}
    for place, cell in enumerate(lesson.cells(), start=1):  # the opening block comes first
        if block := re.search(rf"{build.BEGIN}\n(.*?)^ *{build.END}", cell.source, re.M | re.S):
            found[place] = block[1]
    return found


def shape(line):
    """A line of code without spaces and without its names, unless they are called: ``x = f(a, b)`` is ``f(n,n)``."""
    line = re.sub(r"^\s*(return |\w+(, \w+)* = |print\()", "", line.split("  #")[0])
    name = re.compile(r"(?<![\w.\"'])([A-Za-z_]\w*)(?![\w(\"'])")
    return re.sub(r"\s", "", name.sub(lambda m: m[0] if keyword.iskeyword(m[0]) else "n", line))


@EVERY
def test_no_solution_stands_elsewhere_in_the_students_copy(lesson):
    """Compared by the shape of its lines; loops and short lines prove nothing."""
    cells = [c for c in build.notebook(lesson, exercises=True).cells if c.cell_type == "code"]
    code_lines = {shape(line) for c in cells for line in c.source.splitlines()}
    for place, block in solutions(lesson).items():
        lines = [x for x in map(shape, block.splitlines()) if len(x) >= 9 and not x.startswith("for")]
        assert not lines or not set(lines) <= code_lines, (place, lines)


@EVERY
def test_unfilled_exercises_fail_with_a_helpful_line_and_solutions_pass(lesson, capsys):
    imports = "from refdiff_lite import lesson\n" + code(lesson)[1].source
    for solved, student in zip(build.notebook(lesson).cells, build.notebook(lesson, exercises=True).cells, strict=True):
        if build.tagged(student, "exercise"):
            scope: dict = {}
            exec(imports, scope)
            with pytest.raises(CheckFailed, match=r"not filled in yet: replace the|no guess yet"):
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
    wrong = [lambda *_: None, lambda *_: "?", 3.3] if callable(check.right) else [None, "?", [1, 2, 3, 4, 5, 6, 7]]
    for answer in wrong:
        with pytest.raises(CheckFailed) as failed:
            check(answer)
        assert "\n" not in str(failed.value)


ANSWERS = {x.name: importlib.import_module(f"answers.{x.name[3:]}") for x in LESSONS
           if (ROOT / "tests" / "answers" / f"{x.name[3:]}.py").exists()}  # fmt: skip
TRIED = [pytest.param(c, ANSWERS[x.name], n, id=f"{x.name}-{n}") for x in LESSONS if x.name in ANSWERS
         for n, c in checks_of(x).items()]  # fmt: skip


@pytest.mark.parametrize(("check", "answers", "name"), TRIED)
def test_each_check_accepts_other_right_answers_and_rejects_wrong_ones(check, answers, name, capsys):
    """Right ones are written in other ways, with other types; the popular mistakes are among the wrong ones."""
    right, wrong = answers.RIGHT[name], [*answers.WRONG[name], *check.mistakes.values()]
    assert len(right) >= 3
    assert len(wrong) >= 4
    for answer in right:
        check(answer)
        assert capsys.readouterr().out == f"✓ {check.done}\n"
    for answer in wrong:
        with pytest.raises(CheckFailed):
            check(answer)


def test_a_value_counts_and_its_type_does_not():
    import numpy as np
    import torch

    from refdiff_lite.checks import same

    for a, b in ((np.int64(3), 3), (torch.tensor(3), 3), (3.0, 3), (np.float32(0.5), 0.5), ("(C)", "c"), ("c)", "c"),
                 ((1, 2), [1, 2]), (np.array([1, 2]), [1, 2]), ([[1.0, 2.0]], torch.tensor([[1.0, 2.0]])),
                 ({"x": (1,)}, {"x": [1]}), ("right", ("right",)), (np.True_, True), (torch.ones(2), np.ones(2))):  # fmt: skip
        assert same(a, b), (a, b)
    for a, b in ((3.5, 3), (True, 1), ("cc", "c"), ([1, 2, 3], [1, 2]), (np.ones((2, 1)), np.ones(2)), (None, 0), ("3", 3),
                 ({"x": 1, "y": 2}, {"x": 1}), (float("nan"), 1.0), (3, "c"), ([], 0.0)):  # fmt: skip
        assert not same(a, b), (a, b)


def test_a_guess_is_noted_and_never_graded(capsys):
    guess = Guess("the winner", "ab")
    guess.against(1.0)
    assert "no guess was made" in capsys.readouterr().out
    for wrong in (..., "d", None, 3):
        with pytest.raises(CheckFailed):
            guess(wrong)
    guess("(B)")
    guess.against("a")
    assert "measured a, the guess was b" in capsys.readouterr().out
    with pytest.raises(CheckFailed, match="number"):
        Guess("how many")("many")


def test_a_failed_check_shows_one_line_without_a_traceback():
    assert CheckFailed("why")._render_traceback_() == ["✗ why"]


# the runs

HALF = """
import torch
from torch.func import functional_call

from refdiff_lite import lesson
from refdiff_lite.networks import loading

loading.device_and_dtype = lesson.device_and_dtype = lambda: (torch.device("cpu"), torch.float16)


def compute_in_float(kind):
    # A CPU is up to sixty times slower in fp16. So compute in float and round to fp16, weights, inputs and results.
    plain = kind.forward

    def forward(self, x):
        if getattr(self.weight, "dtype", None) != torch.float16 or x.dtype != torch.float16:
            return plain(self, x)
        weights = {name: weight.float() for name, weight in self.named_parameters()}
        return functional_call(self, weights, (x.float(),)).half()

    kind.forward = forward


for kind in (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm):
    compute_in_float(kind)
"""


def run(nb, environment=None):
    """A notebook run in a fresh kernel, which finds this copy of the package and the tests' answers."""
    from nbclient import NotebookClient

    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": paths,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    client = NotebookClient(nb, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(build.HERE)}})
    client.execute(env=env | (environment or {}))
    return nb


def as_stored(lesson):
    """nbval's run: every cell runs, checked cells print what is stored."""
    command = "--nbval-lax --nbval-current-env --nbval-cell-timeout=300 -p no:cacheprovider -q".split()
    return subprocess.run(
        [sys.executable, "-m", "pytest", *command, str(build.HERE / f"{lesson.name}.ipynb")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def untouched(lesson):
    return run(build.notebook(lesson, exercises=True))


def solved_otherwise(lesson):
    nb = build.notebook(lesson, exercises=True)
    for place in tagged_exercises(nb):
        check, answer = re.search(r"checks\.((?:check|guess)_\w+)\((\w+)?", nb.cells[place].source).groups()
        right = f"answers.{lesson.name[3:]}", f'RIGHT["{check}"][0]'
        call = nb.cells[place].source[nb.cells[place].source.index(f"checks.{check}") :]
        solved = f"import importlib\n{answer or 'answer'} = importlib.import_module('{right[0]}').{right[1]}\n"
        nb.cells[place].source = solved + (call if answer else f"checks.{check}(answer)")
    return run(nb)


def in_half(lesson):
    """As on a GPU; emulated on the CPU by the kernel's start-up file."""
    with tempfile.TemporaryDirectory() as folder:
        startup = Path(folder) / "profile_default" / "startup"
        startup.mkdir(parents=True)
        (startup / "half.py").write_text(HALF)
        return run(build.notebook(lesson), {"IPYTHONDIR": folder})


RUNS = {"test_the_lesson_runs": as_stored, "test_an_untouched_student_copy_runs_to_its_end": untouched,
        "test_a_student_copy_solved_in_other_ways_runs_without_an_error": solved_otherwise,
        "test_the_lesson_holds_with_networks_in_half_precision": in_half}  # fmt: skip


@pytest.fixture(scope="session")
def runs(request):
    """All runs that the chosen tests need, by test. Two at a time, for each takes one core: half the wait."""
    pool = ThreadPoolExecutor(min(2, os.cpu_count() or 1))
    items = [item for item in request.session.items if getattr(item, "originalname", None) in RUNS]
    yield {item.nodeid: pool.submit(RUNS[item.originalname], item.callspec.params["lesson"]) for item in items}
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def ran(request, runs):
    """What the run of this test gave."""
    return runs[request.node.nodeid].result()


def errors(nb):
    return {i: o for i, c in enumerate(nb.cells) for o in c.get("outputs", []) if o.output_type == "error"}


@pytest.mark.slow
@ALL
def test_the_lesson_runs(lesson, ran):
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]


@pytest.mark.slow
@EVERY
def test_an_untouched_student_copy_runs_to_its_end(lesson, ran):
    """What fails is an exercise, or the cell that uses its answer, and it says so in one line."""
    failed = errors(ran)
    assert failed.keys() >= set(tagged_exercises(ran))
    for place, error in failed.items():
        assert any(build.tagged(ran.cells[place], tag) for tag in build.ANSWERED), ran.cells[place].source
        assert len(error.traceback) == 1, error.traceback
    assert ran.cells[-1].cell_type == "markdown"


@pytest.mark.slow
@pytest.mark.parametrize("lesson", [x for x in LESSONS if x.name in ANSWERS], ids=lambda x: x.name)
def test_a_student_copy_solved_in_other_ways_runs_without_an_error(lesson, ran):
    assert errors(ran) == {}


@pytest.mark.slow
@pytest.mark.parametrize("lesson", [x for x in LESSONS if x.number != 10], ids=lambda x: x.name)
def test_the_lesson_holds_with_networks_in_half_precision(lesson, ran):
    """Lesson 10 trains networks of its own, in float."""
    assert "in float16" in ran.cells[1].outputs[0].text
    assert errors(ran) == {}
