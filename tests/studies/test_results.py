"""README's tables are what the measured runs say, and nobody has typed them."""

import json
from pathlib import Path

import pytest
from builders import row

from refdiff_lite.evaluation.summary import gains, summarise
from refdiff_lite.files import data_dir
from studies.results import BEGIN, END, RUNS, condense, insert, main, tables

README = Path(__file__).parents[2] / "README.md"


def summary(name, done=2):
    """As evaluation writes it: full finds one of two things, gs none."""
    split, proposals = name.split("-")
    rows = {
        "full": [row(9, 10, True, variant="full"), row(1, 10, False, image=1, sent=1, variant="full")],
        "gs": [row(1, 10, False), row(0, 10, False, image=1, sent=1)],
    }
    variants = {v: {style: summarise(r) for style in ("all", "noun")} for v, r in rows.items()}
    return {
        "split": split, "proposals": proposals, "images": done, "images_total": 2, "seed": 0, "variants": variants,
        "gains": gains(rows["full"] + rows["gs"]),
    }  # fmt: skip


def test_numbers_by_hand():
    found = tables({name: condense(summary(name)) for name in RUNS})
    assert "| accuracy | noun (n = 2) | all (n = 2) | unseen (n = 2) |" in found
    assert "| full | 50.0 (0–100) | 50.0 (0–100) | 50.0 (0–100) |" in found
    assert "| chance | 25 | 25 | 25 |" in found
    assert "| full | 50.0 (10–90) | 50.0 (10–90) | 50.0 (10–90) | 50.0 (0–100) |" in found  # mIoU twice, oIoU, accuracy
    assert "full − gs +45.0 (+10.0 to +80.0)" in found
    assert "only" not in found
    rows = [line.count("|") for line in found.splitlines() if line.startswith("|")]
    assert rows == [5] * 5 + [6] * 4


def test_a_part_of_a_run_is_called_so():
    runs = {name: condense(summary(name, done=1 if "unseen" in name else 2)) for name in RUNS}
    assert tables(runs).count("**only 1 of 2 scenes of unseen**") == 1


def test_the_command_writes_between_the_marks_alone(tmp_path):
    for name in RUNS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(summary(name)))
    readme = tmp_path / "README.md"
    readme.write_text(f"# Before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):  # the second time changes nothing
        main([tmp_path / name for name in RUNS], tmp_path, readme)
        kept = json.loads((tmp_path / "results.json").read_text())
        assert readme.read_text() == f"# Before\n{BEGIN}\n{tables(kept)}\n{END}\nafter\n"
    with pytest.raises(ValueError, match="no run of unseen-oracle"):
        main([tmp_path / RUNS[0], tmp_path / RUNS[2]], tmp_path, readme)
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="put them where the tables belong"):
        insert(readme, "x")


def test_readme_holds_what_was_measured():
    kept = json.loads((data_dir() / "models" / "toy" / "results.json").read_text())
    block = README.read_text().partition(BEGIN)[2].partition(END)[0]
    assert block == f"\n{tables(kept)}\n"
    methods = [set(kept[name]["methods"]) for name in RUNS]
    assert methods[0] == methods[1] == {"g", "gs", "ds", "full"}
    assert len(methods[2]) == 10
