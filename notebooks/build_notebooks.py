"""Build the lessons: ``python notebooks/build_notebooks.py [01 02 …]`` (``make notebooks`` builds all).

``NN_name.py`` (py:percent, with solutions) is the one source. From it come ``NN_name.ipynb``, executed, with stored
outputs, and ``exercises/NN_name.ipynb``, with the solutions taken out. Building twice gives the same bytes. The tour,
``explorers.py``, has no exercises and no place in the row of lessons.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import os
import re
import sys
import textwrap
import time
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml
from PIL import Image

from refdiff_lite.files import write_text

HERE = Path(__file__).resolve().parent
REPOSITORY = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
CHECKED = "nbval-check-output"
ANSWERED = ("exercise", "answer")
"""Tags of cells that fail until the student has solved the exercise: in the student's copy they let Run All go on."""
PICTURES = ("image/png", "image/jpeg")
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
SETUP = f"""\
# Set-up: the same cell in every lesson. Running it again does no harm.
PRESET = "toy"  # the one line to change: "sd15" runs the lesson on Stable Diffusion 1.5, on a GPU

try:
    from refdiff_lite import lesson
except ModuleNotFoundError:  # in Colab: adds what is missing and replaces nothing
    %pip install --quiet "refdiff-lite @ git+{REPOSITORY}"
    from refdiff_lite import lesson

lesson.start(PRESET)"""


@dataclass(frozen=True)
class Lesson:
    """One source file: its header (title, minutes, cpu, goals) and its cells."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> int | None:
        """Place in the course; the tour has none, and so no exercises and no neighbours."""
        return int(self.name[:2]) if self.name[:2].isdigit() else None

    @cached_property
    def _parts(self) -> tuple[dict[str, Any], str]:
        found = re.match(r"# ---\n(.*?)# ---\n", text := self.path.read_text(encoding="utf-8"), re.S)
        if not found:
            raise ValueError(f"{self.path.name} must begin with a header between two lines '# ---'")
        return yaml.safe_load(re.sub(r"^# ?", "", found[1], flags=re.M)), text[found.end() :]

    @property
    def header(self) -> dict[str, Any]:
        return self._parts[0]

    def cells(self) -> list[Any]:
        """The source's cells, new at each call, with ids that hang on their text alone."""
        cells = jupytext.reads(self._parts[1], fmt="py:percent").cells
        for cell in cells:
            cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if not tagged(cells[0], "setup"):
            raise ValueError(f'the first cell of {self.path.name} must be the set-up cell, tags=["setup"]')
        return cells


def tagged(cell: Any, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def lessons() -> list[Lesson]:
    return [Lesson(path) for path in sorted(HERE.glob("[0-9][0-9]_*.py"))]


def tour() -> Lesson:
    return Lesson(HERE / "explorers.py")


def opening(lesson: Lesson, exercises: bool) -> str:
    """The block at the head of every notebook, from the lesson's header."""
    h, file = lesson.header, f"{lesson.name}.ipynb"
    colab = f"https://colab.research.google.com/github/{REPOSITORY.split('github.com/')[1]}/blob/main/notebooks/"
    badge = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}%s)"

    goals = "You will be able to\n\n" + "\n".join(f"- {goal}" for goal in h["goals"])
    cost = f"about {h['cpu']} min on one CPU core"
    if lesson.number is None:
        return f"# {h['title']}\n\n{badge % file} {h['minutes']} minutes of yours; {cost}.\n\n{goals}"
    every = lessons()
    place = [other.name for other in every].index(lesson.name)

    def link(other: Lesson | None) -> str:
        return f"[{other.number} {other.header['title']}]({other.name}.ipynb)" if other else "–"

    if exercises:
        twin = f"Exercises to solve. Everything solved, with its outputs: [lesson {lesson.number}](../{file})."
    else:
        twin = f"Here the exercises are solved. To solve them yourself: [exercises/{file}](exercises/{file})."
    return f"""\
# {lesson.number} · {h["title"]}

{badge % (("exercises/" if exercises else "") + file)} {twin} Words and symbols: [glossary](../docs/glossary.md). What an
interval means: [intervals](../docs/intervals.md).

| your time | computing time | before this | after this |
|---|---|---|---|
| {h["minutes"]} minutes | {cost} \
| {link(every[place - 1] if place else None)} | {link(every[place + 1] if place + 1 < len(every) else None)} |

{goals}"""


def split_solutions(source: str, student: bool) -> str:
    """A cell's code with the solution in place, or with a stub instead of every solution block."""

    def replace(found: re.Match[str]) -> str:
        indent, block = found[1], found[2]
        if not student:
            return block
        if indent:
            return f'{indent}raise lesson.Todo("your code here")\n'
        tree = ast.parse(textwrap.dedent(block))
        names = [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
        return "".join(f"{name} = ...  # your answer\n" for name in names)

    return re.sub(rf"^([ ]*){BEGIN}\n(.*?)^[ ]*{END}\n?", replace, source + "\n", flags=re.M | re.S).rstrip("\n")


def link_lessons(text: str, here: Lesson) -> str:
    """Prose in which every "lesson 3" is a link; the copies for students lie side by side, so theirs resolve as well."""
    files = {str(other.number): f"{other.name}.ipynb" for other in lessons() if other.number != here.number}

    def link(found: re.Match[str]) -> str:
        return f"[{found[0]}]({files[found[1]]})" if found[1] in files else found[0]

    return re.sub(r"(?<!\[)\b[Ll]esson (\d+)\b(?!\])", link, text)


def notebook(lesson: Lesson, exercises: bool = False) -> Any:
    """The notebook of a lesson, not yet run: opening block, set-up cell, and the source's cells."""
    cells = [nbformat.v4.new_markdown_cell(opening(lesson, exercises)), *lesson.cells()]
    seen: dict[str, int] = {}
    for cell in cells:
        if cell.cell_type == "code":
            cell.source = SETUP if tagged(cell, "setup") else split_solutions(cell.source, exercises)
            if exercises and any(tagged(cell, tag) for tag in ANSWERED):
                cell.metadata["tags"] = [*cell.metadata["tags"], "raises-exception"]
        elif cell is not cells[0]:
            cell.source = link_lessons(cell.source, lesson)
        if cell.cell_type == "markdown" and exercises:  # the copies lie one folder deeper
            cell.source = re.sub(r"\]\(\.\./(docs|refdiff_lite|data|benchmarks)/", r"](../../\1/", cell.source)
        digest = hashlib.sha256(cell.source.encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = f"{digest}-{seen[digest]}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def execute(nb: Any) -> None:
    """Run all cells in a fresh kernel and keep what is worth storing: text, tables, and pictures made small."""
    from nbclient import NotebookClient

    NotebookClient(nb, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}).execute()
    nb.metadata.pop("widgets", None)
    nb.metadata["language_info"] = {"name": "python"}
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not progress_bar(o)]
            for output in cell.outputs:
                if "data" in output:
                    keep_picture(output)


def keep_picture(output: Any) -> None:
    """Of an output with a picture: the picture, made small, and its text for readers who cannot see it."""
    still = output.data.pop("application/vnd.jupyter.widget-view+json", None)
    alt = "A still of the explorer; run the cell to use it." if still else ""
    alt = output.metadata.get("image/png", {}).get("alt", alt)
    output.metadata = {}
    if "image/png" in output.data:
        kind, encoded = small_picture(output.data.pop("image/png"))
        output.data[kind] = encoded
        if alt:
            output.metadata = {kind: {"alt": alt}}


def progress_bar(output: Any) -> bool:
    """A bar in text, or as a widget, which has no still picture as the explorers have."""
    data = output.get("data", {})
    return output.get("name") == "stderr" or (
        "application/vnd.jupyter.widget-view+json" in data and "image/png" not in data
    )


def small_picture(encoded: str) -> tuple[str, str]:
    """A PNG where that is small, else a JPEG with every colour kept apart: (mime type, base64)."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    exact, near = io.BytesIO(), io.BytesIO()
    few = picture.getcolors(256)
    (picture.quantize(len(few)) if few else picture).save(exact, "PNG", optimize=True)
    picture.save(near, "JPEG", quality=90, subsampling=0, optimize=True)
    kind, chosen = ("image/jpeg", near) if exact.tell() > max(30_000, near.tell()) else ("image/png", exact)
    return kind, base64.b64encode(chosen.getvalue()).decode()


def syllabus() -> str:
    """README.md's table, from the headers of all lessons."""
    rows = ["| lesson | minutes | you will be able to | exercises |", "|---|---|---|---|"]
    for lesson in lessons():
        goals = "; ".join(lesson.header["goals"])
        count = sum(tagged(cell, "exercise") for cell in lesson.cells())
        file = f"{lesson.name}.ipynb"
        title = f"[{lesson.number} {lesson.header['title']}]({file})"
        rows.append(f"| {title} | {lesson.header['minutes']} | {goals} | [{count}](exercises/{file}) |")
    return "\n".join(rows)


def readme() -> str:
    """notebooks/README.md with a fresh table between its markers."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    begin, end = "<!-- syllabus -->\n", "\n<!-- end of syllabus -->"
    return text[: text.index(begin) + len(begin)] + syllabus() + text[text.index(end) :]


def save(nb: Any, path: Path) -> None:
    nbformat.validate(nb)
    write_text(path, nbformat.writes(nb) + "\n")


def set_environment() -> None:
    """What the kernels are to find: this copy of the package, and one thread."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same sums in the same order on every machine


def main(wanted: list[str]) -> None:
    """Build the lessons (or the tour) whose names begin with one of ``wanted``, or all of them, and the syllabus."""
    set_environment()
    every = [*lessons(), tour()]
    chosen = [x for x in every if not wanted or x.name.startswith(tuple(wanted))]
    if not chosen:
        raise SystemExit(f"no lesson begins with {' or '.join(wanted)}; there are {', '.join(x.name for x in every)}")
    (HERE / "exercises").mkdir(exist_ok=True)
    for lesson in chosen:
        start = time.perf_counter()
        nb = notebook(lesson)
        execute(nb)
        save(nb, HERE / f"{lesson.name}.ipynb")
        if lesson.number is not None:
            save(notebook(lesson, exercises=True), HERE / "exercises" / f"{lesson.name}.ipynb")
        print(f"{lesson.name}: {time.perf_counter() - start:.0f} s", flush=True)
    for lesson in lessons():  # an opening block names its neighbours: those of a new lesson change too
        for exercises in (False, True):
            path = HERE / ("exercises" if exercises else "") / f"{lesson.name}.ipynb"
            if path.exists():
                nb = nbformat.read(path, as_version=4)
                nb.cells[0] = notebook(lesson, exercises).cells[0]
                save(nb, path)
    write_text(HERE / "README.md", readme())


if __name__ == "__main__":
    main(sys.argv[1:])
