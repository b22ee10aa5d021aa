"""The ablation compares each line with its group's first, on the same expressions."""

import json
import re
from unittest.mock import patch

import numpy as np
import pytest

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.config import VARIANTS
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.run import evaluate_scene
from refdiff_lite.networks import load
from refdiff_lite.networks.compat import cross_attention_modules
from refdiff_lite.unet_pass import unet_pass
from studies import ablation


def test_every_line_changes_one_thing_of_the_preset_and_names_it():
    lines = ablation.rows(["up_blocks.0.attentions.1"])
    assert len({(r.group, r.name) for r in lines}) == len(lines)
    toy = RefDiffConfig.toy().to_dict()
    for row in lines:
        changed = {k for k, v in row.config.to_dict().items() if v != toy[k]}
        if row.group.startswith("attention"):
            assert changed <= {"noise_step", "denoise_steps"} or len(changed) == 1, row.name
    assert {r.variant for r in lines} == set(VARIANTS)


def test_summary_compares_expression_by_expression():
    images = list(range(40))
    base = [float(i % 2) for i in images]
    better = [max(b, float(i % 4 == 0)) for i, b in zip(images, base, strict=True)]
    found = ablation.summary(better, base, images)
    assert found["value"] == 0.75
    assert found["change"] == 0.25
    assert 0 < found["change_interval"][0] < 0.25 < found["change_interval"][1] < 0.5
    same = ablation.summary(base, base, images)
    assert same["change_interval"] == [0, 0]  # the row that the others are compared with
    low, high = ablation.summary(list(base), base, images)["change_interval"]  # another row that agrees 40 times
    assert -0.1 < low < -0.05
    assert 0.05 < high < 0.1
    assert same["interval"][0] < 0.5 < same["interval"][1]


@pytest.mark.parametrize("images", [1, 12, 160])
def test_all_right_is_no_interval_of_width_0(images):
    found = ablation.summary([1.0] * images, [0.0] * images, list(range(images)))
    assert found["value"] == found["change"] == found["interval"][1] == found["change_interval"][1] == 1
    assert found["interval"][0] == pytest.approx(images / (images + 1.96**2), abs=1e-3)


@pytest.mark.slow
def test_a_shared_pass_changes_no_row():
    nets, sample = load("toy"), next(s for s in load_toyref("test", "noun") if len(s.records) > 2)
    toy = RefDiffConfig.toy
    last = list(cross_attention_modules(nets.sd.unet))[-1]
    configs = [toy(), toy(layers=re.escape(last)), toy(propagate=1), toy(positional_bias="none"), toy(noise_step=4)]
    jobs = {ablation.Job(c, True, "oracle"): ["gs", "g"] for c in configs}
    with patch("refdiff_lite.scene.unet_pass", wraps=unet_pass) as calls:
        found = ablation.outcomes(nets, jobs, [sample])
    assert calls.call_count == 2 * len(sample.records)  # toy's pass, and the one at another noise step
    for job, rows in found.items():
        assert rows == list(evaluate_scene(RefDiff(nets, job.config), sample, ["gs", "g"], "oracle"))
    assert len({json.dumps(rows) for rows in found.values()}) > 2


@pytest.mark.slow
def test_the_command_writes_every_line(tmp_path, monkeypatch):
    best = "proposals, mean IoU of the best proposal, all styles"
    keep = {"variants, all styles", "attention, g by Otsu, noun, mIoU", best}
    names = {"full", "ds", "gs", "g", "as chosen on val", "self-attention, once", "threshold by S_G (paper)"}
    names |= {"Felzenszwalb", "clusters of self-attention"}
    every = ablation.rows
    monkeypatch.setattr(
        ablation, "rows", lambda layers: [r for r in every(layers) if r.group in keep and r.name in names]
    )
    ablation.main(limit=2, out=tmp_path)
    groups = json.loads((tmp_path / "ablation.json").read_text())["groups"]
    assert set(groups) == keep
    assert {n for lines in groups.values() for n in lines} == names
    lines = groups["attention, g by Otsu, noun, mIoU"]
    assert lines["as chosen on val"]["change"] == 0
    assert lines["self-attention, once"]["value"] != lines["as chosen on val"]["value"]
    assert groups[best]["Felzenszwalb"]["value"] != groups[best]["clusters of self-attention"]["value"]
    assert all(np.isfinite(row["value"]) and row["n"] > 0 for rows in groups.values() for row in rows.values())
    assert (tmp_path / "ablation.png").stat().st_size > 5_000
