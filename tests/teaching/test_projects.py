"""Projects: each measures its methods on a few scenes, in pairs, and a better method is seen to be better."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from refdiff_lite.datasets.toyref import load_toyref

ROOT = Path(__file__).parents[2]
NAMES = ("better_proposals", "know_when_wrong", "mask_from_map", "nobody_there", "half_the_work")


@pytest.fixture(scope="module")
def projects():
    sys.path.insert(0, str(ROOT))
    yield {name: importlib.import_module(f"teaching.projects.{name}") for name in (*NAMES, "yardstick")}
    sys.path.remove(str(ROOT))


@pytest.mark.parametrize("name", NAMES)
def test_a_project_measures_all_its_methods(projects, name):
    told = projects[name].measure(load_toyref("val", limit=2))
    assert told["methods"].keys() == projects[name].METHODS.keys()
    for place, cell in enumerate(told["methods"].values()):
        assert ("minus first" in cell) == (place > 0)  # the first is not compared with itself
        assert cell["interval"][0] <= cell["value"] <= cell["interval"][1]
    assert f"{name}.py" in (ROOT / "teaching" / "projects" / "README.md").read_text()


def test_the_yardstick_knows_better_from_worse(projects):
    yard = projects["yardstick"]
    rng = np.random.default_rng(0)
    images = np.arange(200) // 2
    first = rng.uniform(0.2, 0.6, 200)
    told = yard.compare({"first": first, "better": first + 0.1, "same": first}, images)["methods"]
    assert told["better"]["minus first"] == pytest.approx(0.1)
    assert told["better"]["difference's interval"][0] > 0
    low, high = told["same"]["difference's interval"]
    assert low < 0 < high
    right = rng.random(200) < 0.7
    assert yard.auroc(right + rng.normal(0, 0.1, 200), right) > 0.95
    assert yard.auroc(np.zeros(200), right) == 0.5
