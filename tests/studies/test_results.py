"""README's tables are what the measured runs say, and nobody has typed them."""

import json
import math
import re
from pathlib import Path

import pytest
from builders import row

from refdiff_lite.config import BASELINES, VARIANTS
from refdiff_lite.evaluation.summary import gains, summarise
from refdiff_lite.files import data_dir
from studies.results import BEGIN, END, RUNS, condense, insert, main, tables

README = Path(__file__).parents[2] / "README.md"


def summary(name, done=10):
    """As evaluation writes it: of ten things full finds eight, gs four."""
    split, proposals = name.split("-")
    rows = [
        row(9 if hit else 1, 10, hit, image=n, sent=n, variant=variant)
        for variant, right in (("full", 8), ("gs", 4))
        for n in range(10)
        for hit in [n < right]
    ]
    variants = {
        v: {style: summarise([r for r in rows if r["variant"] == v]) for style in ("all", "noun")}
        for v in ("full", "gs")
    }
    return {
        "split": split, "proposals": proposals, "images": done, "images_total": 10, "seed": 0, "variants": variants,
        "gains": gains(rows),
    }  # fmt: skip


def test_numbers_by_hand():
    found = tables({name: condense(summary(name)) for name in RUNS})
    assert "| accuracy | noun (n = 10) | all (n = 10) | unseen (n = 10) |" in found
    n, z = 9, 2.2622  # 10 images: a tenth of the variance is lost to the mean, Student's t with 9 degrees of freedom
    centre, half = 0.8 + z**2 / 2 / n, z * math.sqrt(0.16 / n + z**2 / 4 / n**2)
    low, high = ((centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    shown = f"80.0 ({math.floor(100 * low)}–{math.ceil(100 * high)})"
    assert f"| full | {shown} | {shown} | {shown} |" in found
    assert "| chance | 25 | 25 | 25 |" in found
    assert re.search(
        r"\| full \| 74\.0 \((\d+–\d+)\) \| 74\.0 \(\1\) \| 74\.0 \(\1\) \| 80\.0 ", found
    )  # mIoU twice, oIoU
    points = re.search(r"\| full − gs \| \+32\.0 \((.+) to (.+)\) \| \+40\.0 \((.+) to (.+)\) \|", found)
    low, high, less, more = map(float, points.groups())
    assert -10 < low < 10
    assert 45 < high < 65
    assert (less + more) / 2 == pytest.approx(1.25 * (low + high) / 2, abs=5)
    assert "only" not in found
    rows = [line.count("|") for line in found.splitlines() if line.startswith("|")]
    assert rows == [5] * 5 + [6] * 4 + [4] * 3


def test_a_part_of_a_run_is_called_so():
    runs = {name: condense(summary(name, done=1 if "unseen" in name else 10)) for name in RUNS}
    assert tables(runs).count("**only 1 of 10 scenes of unseen**") == 1


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
    assert methods[0] == methods[1] == set(VARIANTS)
    assert methods[2] == set(VARIANTS) | set(BASELINES)
