"""The toy preset's constants are those that the committed sweep on val chose."""

import json

from refdiff_lite import RefDiffConfig
from refdiff_lite.paths import data_dir


def test_toy_constants_are_the_sweep_s_choice():
    chosen = json.loads((data_dir() / "models" / "toy" / "tune.json").read_text())["chosen"]
    toy = RefDiffConfig.toy().to_dict()
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in toy.items() if k in chosen} == chosen
