"""The pages in docs/: their code runs, and what they name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [p for p in (ROOT / "docs" / "howto").glob("*.md") if "```python" in p.read_text(encoding="utf-8")]


def test_there_are_pages_with_code():
    assert len(PAGES) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_code_of_a_page_runs(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)  # the pages name bundled files as seen from the clone
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    names: dict = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    assert capsys.readouterr().out.strip(), "the page prints nothing to look at"


def test_files_and_modules_that_the_pages_name_exist():
    for page in [ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for name in re.findall(
            r"`((?:refdiff_lite|tests|studies|networks|notebooks|data)/[\w/.-]+)`", page.read_text(encoding="utf-8")
        ):
            places = (ROOT / name, ROOT / "refdiff_lite" / name)
            assert "NN" in name or name.endswith("/name.py") or any(p.exists() for p in places), (
                f"{page.name} names {name}"
            )


def test_the_tree_in_the_architecture_is_the_tree():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    top = {p.name for p in (ROOT / "refdiff_lite").glob("*.py")} - {"__init__.py"}
    rooms = {f"{p.name}/" for p in (ROOT / "refdiff_lite").iterdir() if (p / "__init__.py").is_file()}
    assert {name for name in top | rooms if f"`{name}`" not in text} == set()


def test_every_module_of_the_paper_and_its_rooms_has_its_test_file():
    """The tests mirror the tree; a module with an underscore in front has none."""
    lacking = []
    for room in ("", "networks", "evaluation", "datasets", "variants", "live"):
        for module in (ROOT / "refdiff_lite" / room).glob("[!_]*.py"):
            if not (ROOT / "tests" / room / f"test_{module.name}").is_file():
                lacking.append(f"{room}/{module.name}")
    assert lacking == []
