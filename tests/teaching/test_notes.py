"""Teacher's notes: the minutes of a lesson, its own sections, and wrong ideas tied to what corrects them."""

import ast
import itertools
import re
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
PARTS = (
    "Timing",
    "What to show",
    "Likely questions",
    "Common wrong ideas",
    "The open question",
    "Where students stumble",
)


def rows(text, part):
    """The cells of a table's rows under a heading."""
    told = text.partition(f"## {part}\n")[2].partition("\n## ")[0]
    lines = [line for line in told.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def claimed(lesson):
    """The sentences of all claims that a lesson writes out."""
    calls = (
        node for c in jupytext.read(lesson).cells if c.cell_type == "code" for node in ast.walk(ast.parse(c.source))
    )
    return {
        c.args[0].value
        for c in calls
        if isinstance(c, ast.Call) and getattr(c.func, "attr", "") == "claim" and isinstance(c.args[0], ast.Constant)
    }


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.stem[:2])
def test_notes_keep_to_their_lesson(lesson):
    text = (ROOT / "teaching" / "notes" / f"{lesson.stem[:2]}.md").read_text(encoding="utf-8")
    source = lesson.read_text(encoding="utf-8")
    headings = re.findall(r"^# #{2,3} (.+)$", source, re.MULTILINE)
    kit = (ROOT / "teaching" / "README.md").read_text(encoding="utf-8")
    assert f"[notes](notes/{lesson.stem[:2]}.md) | [quiz](quizzes/{lesson.stem[:2]}.md)" in kit
    assert re.search(r"^\*\*Goal\.\*\* \S", text, re.MULTILINE)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == list(PARTS)

    spans = [(*map(int, minutes.split("–")), section) for minutes, section, *_ in rows(text, "Timing")]
    assert spans[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    assert spans[-1][1] == int(re.search(r"^# minutes: (\d+)", source, re.MULTILINE)[1])
    assert {section for *_, section in spans} <= {*headings, "–"}
    stated = dict(re.findall(r"^# ### (Exercise .+)\n# \*\*Difficulty.*\*\*Time\*\* (\d+)", source, re.MULTILINE))
    short = [s for a, b, s in spans if b - a < int(stated.get(s, 0))]
    assert short == []
    below = text.partition("## Timing")[2].partition("\n## ")[0]
    assert [h for h in headings if h not in below and h != "Recap"] == []  # in the table, or said to be left out

    ideas = rows(text, "Common wrong ideas")
    assert len(ideas) >= 4
    for *_, by in ideas:
        claim = re.search(r"✓ (.+)$", by)
        assert (claim[1] in claimed(lesson)) if claim else any(h in by for h in headings), by
    assert len(re.findall(r"^\*\*.+\?\*\*", text.partition("## Likely questions")[2], re.MULTILINE)) >= 4
    assert text.partition("## What to show")[2].partition("\n## ")[0].count("\n- ") >= 2
