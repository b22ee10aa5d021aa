"""The toy preset's constants are those that the committed sweep on val chose."""

import json

import numpy as np
import pytest

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.run import evaluate_scene
from refdiff_lite.files import data_dir
from refdiff_lite.networks import load
from studies import tune


def test_toy_constants_are_the_sweep_s_choice():
    chosen = json.loads((data_dir() / "models" / "toy" / "tune.json").read_text())["chosen"]
    toy = RefDiffConfig.toy().to_dict()
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in toy.items() if k in chosen} == chosen


def test_diffusion_alone_in_the_sweep_is_what_the_evaluation_finds():
    """S_G and S_D must be of the same proposal, in whatever order proposals come."""
    nets, samples = load("toy"), load_toyref("val", "noun", 4)
    rows = tune.ranking_rows(RefDiff(nets), samples, RefDiffConfig.toy())
    for variant, alpha in (("gs", 1.0), ("ds", 0.0)):
        model = RefDiff(nets, RefDiffConfig.toy(positional_bias="none"))
        found = [r["hit"] for s in samples for r in evaluate_scene(model, s, [variant], "oracle")]
        toy = RefDiffConfig.toy()
        swept = tune.accuracy(rows, "none", alpha, toy.beta, toy.noun_in_crop, toy.noun_in_masked)
        assert swept["noun"] == sum(found) / len(found)


@pytest.mark.slow
def test_clip_alone_is_compared_at_its_best(tmp_path):
    tune.main(limit=3, out=tmp_path / "tune.json")
    report = json.loads((tmp_path / "tune.json").read_text())
    model = RefDiff(load("toy"), RefDiffConfig.toy(**report["chosen for ds"]))
    samples = load_toyref("val", limit=3)
    rows = [r for s in samples for r in evaluate_scene(model, s, ["ds"], "oracle")]
    found = {style: np.mean([r["hit"] for r in rows if r["style"] == style]) for style in report["ds"]}
    assert found == pytest.approx(report["ds"])
    mean = {k: np.mean(list(v.values())) for k, v in (report["along"] | {"ds": report["ds"]}).items()}
    assert mean["ds"] >= mean["alpha 0.0"]  # found with the constants that suit full
