"""The networks as one object: lock, modes, threads, finite numbers, one at a time on the device."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.networks import from_networks


def test_threads_share_a_model_and_a_scene(nets):
    samples = load_toyref("test", "noun", 6)
    expected = [[RefDiff(nets).set_image(s.path).segment(r.text) for r in s.records] for s in samples]
    model = RefDiff(nets)
    scenes = [model.set_image(s.path) for s in samples]
    jobs = [(i, k) for i, s in enumerate(samples) for k in range(len(s.records))] * 3
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: scenes[job[0]].segment(samples[job[0]].records[job[1]].text), jobs))
    assert all(result == expected[i][k] for result, (i, k) in zip(found, jobs, strict=True))


def test_threads_with_inversion(nets, sample):
    config = RefDiffConfig.toy(noise="ddim")
    expected = RefDiff(nets, config).set_image(sample.path).segment(sample.records[0].text)
    scenes = [RefDiff(nets, config).set_image(sample.path) for _ in range(6)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda s: s.segment(sample.records[0].text), scenes)) == [expected] * 6


def test_networks_of_the_users_come_back_as_they_were(nets, sample):
    sd, clip = copy.deepcopy(nets.sd), copy.deepcopy(nets.clip)
    sd.set_progress_bar_config(desc="mine")
    for part in (sd.vae, sd.unet, sd.text_encoder, clip):
        part.train().requires_grad_(True)
    sd.unet.mid_block.eval()
    before = [(m.training, p) for part in (sd.vae, sd.unet, clip) for m in part.modules() for p in m.parameters(False)]
    norm = SimpleNamespace(mean=nets.clip_mean.tolist(), std=nets.clip_std.tolist())
    mine = from_networks(sd, clip, nets.clip_tokenizer, SimpleNamespace(transforms=[norm]), side=nets.side,
                         layers=nets.layers, self_layers=nets.self_layers)  # fmt: skip
    config = RefDiffConfig.toy()
    found = RefDiff(mine, config).set_image(sample.path, oracle=sample.masks).segment(sample.records[0].text)
    expected = RefDiff(nets, config).set_image(sample.path, oracle=sample.masks).segment(sample.records[0].text)
    np.testing.assert_array_equal(found.mask, expected.mask)
    after = [(m.training, p) for part in (sd.vae, sd.unet, clip) for m in part.modules() for p in m.parameters(False)]
    assert [(t, id(p), p.requires_grad, p.grad, p.dtype) for t, p in before] == [
        (t, id(p), True, None, torch.float32) for t, p in after
    ]
    assert sd._progress_bar_config == {"desc": "mine"}


def test_small_networks_use_one_core_and_leave_the_users_setting_alone(nets, sample, monkeypatch):
    during = []
    use = type(nets).use
    monkeypatch.setattr(type(nets), "use", lambda self, part: during.append(torch.get_num_threads()) or use(self, part))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        scene = RefDiff(nets).set_image(sample.path)
        scene.segment(sample.records[0].text)
        with pytest.raises(ValueError, match="no word"):
            scene.segment("!!!")
        assert torch.get_num_threads() == 2
        assert set(during) == {1}
        monkeypatch.setattr("refdiff_lite.networks.networks.SMALL", 0)  # as if they were large
        during.clear()
        RefDiff(nets).set_image(sample.path).segment(sample.records[0].text)
        assert set(during) == {2}
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder", "clip"])
def test_numbers_that_are_not_finite_are_an_error_that_names_the_network(nets, sample, part):
    broken = replace(nets, sd=copy.copy(nets.sd), clip=nets.clip)
    network = copy.deepcopy(nets.clip if part == "clip" else getattr(nets.sd, part))
    with torch.no_grad():
        for weight in network.parameters():
            weight[...] = float("nan")
    if part == "clip":
        broken = replace(nets, clip=network)
    else:
        setattr(broken.sd, part, network)
    scene = RefDiff(broken).set_image(sample.path, oracle=sample.masks)
    with pytest.raises(ValueError, match=f"the {part} gave numbers that are not finite.*float32"):
        scene.segment(sample.records[0].text)
