"""Plans for teachers: what they name exists, and their minutes follow one another."""

import importlib.util
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLANS = sorted((ROOT / "teaching" / "plans").glob("*.md"))


@pytest.fixture(scope="module")
def tried():
    spec = importlib.util.spec_from_file_location("try_plan", ROOT / "teaching" / "try_plan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.stem)
def test_every_section_that_a_plan_names_exists(tried, plan):
    if plan.stem == "seminar":  # names whole lessons
        lessons = set(re.findall(r"^\| \d \| ([\d, ]+) \|", plan.read_text(), re.MULTILINE))
        named = {n for row in lessons for n in re.findall(r"\d\d", row)}
        assert len(named) >= 8
        assert all(list((ROOT / "notebooks").glob(f"{n}_*.ipynb")) for n in named)
        return
    assert len(tried.steps(plan)) >= 5
    shown = [line for lines in tried.shown(plan).values() for line in lines]
    assert all(count > 5 and minutes > 0 for _, count, minutes in shown)


def test_an_unknown_section_is_refused(tried):
    import nbformat

    notebook = nbformat.read(ROOT / "notebooks" / "00_quickstart.ipynb", 4)
    with pytest.raises(ValueError, match="no section"):
        tried.cells_to_show(notebook, "Six lines")
    assert (
        tried.cells_to_show(notebook, "Five lines")
        < tried.cells_to_show(notebook, "Four variants")
        < len(notebook.cells)
    )


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.stem)
def test_minutes_follow_one_another(plan):
    spans = [tuple(map(int, m)) for m in re.findall(r"\| (\d+)–(\d+) \|", plan.read_text())]
    if not spans:
        return
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert start in (end, 0)  # 0: another session begins
    assert all(a < b for a, b in spans)
    named = {"90-minutes": 90}.get(plan.stem, 180)
    assert spans[-1][1] == named
