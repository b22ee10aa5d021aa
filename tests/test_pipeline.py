"""The stages together, on the bundled networks."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from pycocotools import mask as coco_mask

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.config import VARIANTS
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.networks.presets import load


@pytest.fixture(scope="module")
def nets():
    return load("toy")


@pytest.fixture(scope="module")
def sample():
    """A test scene with at least three kinds that can each be named by a noun alone."""
    return next(s for s in load_toyref("test", "noun") if len(s.records) >= 3)


@pytest.fixture(scope="module")
def scene(nets, sample):
    return RefDiff(nets).set_image(sample.path, oracle=sample.masks)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("preset", ["paper", "official", "toy"])
def test_every_variant_runs_with_every_preset_of_constants(nets, sample, variant, preset):
    config = getattr(RefDiffConfig, preset)(min_area=0)
    result = RefDiff(nets, config).set_image(sample.path, oracle=sample.masks).segment(sample.records[0].text, variant)
    assert result.mask.shape == (128, 128)
    assert result.mask.dtype == bool
    assert result.mask.any()
    assert all(len(s) == len(result.masks) for s in result.scores.values())
    assert result.best == int(result.scores["S"].argmax())


def test_scores_of_full_are_the_weighted_sum_of_the_parts(scene, sample):
    result, config = scene.segment(sample.records[0].text), scene.config
    s = config.weight_g * result.scores["S_G"] + config.weight_d * result.scores["S_D"]
    torch.testing.assert_close(result.scores["S"], s)
    gs, ds = (scene.segment(sample.records[0].text, v) for v in ("gs", "ds"))
    torch.testing.assert_close(gs.scores["S"], result.scores["S_G"])
    torch.testing.assert_close(ds.scores["S"], result.scores["S_D"])


def test_same_seed_same_masks_other_seed_other_noise(nets, sample):
    text = sample.records[0].text

    def maps(seed):
        return RefDiff(nets, RefDiffConfig.toy(seed=seed)).set_image(sample.path).segment(text, "full").word_map

    np.testing.assert_array_equal(maps(0), maps(0))
    assert not np.array_equal(maps(0), maps(1))


def test_two_sentences_name_two_objects(scene, sample):
    results = [scene.segment(r.text) for r in sample.records]
    assert len({r.mask.tobytes() for r in results}) == len(results)


def test_image_work_is_done_once(scene, sample, monkeypatch):
    scene.segment(sample.records[0].text)
    monkeypatch.setattr(scene.model.networks.sd.vae, "encode", lambda *a: pytest.fail("encoded again"))
    monkeypatch.setattr("refdiff_lite.clip.encode_masks", lambda *a: pytest.fail("ranked again"))
    scene.segment(sample.records[1].text)


def test_ddim_noise_and_more_draws_change_the_map(nets, sample):
    def word_map(**changes):
        model = RefDiff(nets, RefDiffConfig.toy(**changes))
        return model.set_image(sample.path).segment(sample.records[0].text, "g").word_map

    base = word_map()
    assert not np.array_equal(base, word_map(noise="ddim"))
    assert not np.array_equal(base, word_map(draws=2))


@pytest.mark.parametrize("kind", ["felzenszwalb", "self-attention", "oracle", "weak"])
def test_every_proposal_generator_runs(scene, sample, kind):
    result = scene.segment(sample.records[0].text, "full", kind)
    assert len(result.masks) >= 1
    assert result.proposals == kind


def test_non_square_image_keeps_its_shape(nets):
    image = (np.random.default_rng(0).uniform(size=(90, 300, 3)) * 255).astype(np.uint8)
    scene = RefDiff(nets).set_image(image)
    assert scene.latents.shape[-2:] == (4, 16)
    assert scene.segment("the cat", "g").mask.shape == (90, 300)


def test_large_image_is_worked_on_small_and_answered_large(nets):
    image = np.full((1500, 2100, 3), 200, np.uint8)
    image[300:900, 500:1000] = (200, 30, 30)
    result = RefDiff(nets).set_image(image).segment("the red apple")
    assert result.mask.shape == (1500, 2100)
    assert result.word_map.shape == (731, 1024)


def test_no_proposal_gives_an_empty_mask(nets):
    result = RefDiff(nets).set_image(np.full((128, 128, 3), 90, np.uint8)).segment("the cat")
    assert result.best is None
    assert not result.mask.any()
    assert result.to_dict()["best"] is None


def test_to_dict_holds_the_mask_as_rle(scene, sample):
    result = scene.segment(sample.records[0].text)
    np.testing.assert_array_equal(coco_mask.decode(result.to_dict()["rle"]).astype(bool), result.mask)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(variant="best"), "choose one of g, gs, ds, full"),
        (dict(proposals="magic"), "choose one of weak"),
        (dict(variant="g", proposals="oracle"), "no proposal network"),
        (dict(proposals="sam"), "no SAM"),
        (dict(head="dog house"), "not a word of"),
    ],
)
def test_wrong_arguments_are_named(scene, arguments, said):
    with pytest.raises(ValueError, match=said):
        scene.segment("the cat", **arguments)


def test_oracle_needs_masks_of_the_image(nets, sample):
    with pytest.raises(ValueError, match="ground truth"):
        RefDiff(nets).set_image(sample.path).segment("the cat", "gs", "oracle")
    with pytest.raises(ValueError, match="oracle masks must be"):
        RefDiff(nets).set_image(sample.path, oracle=np.zeros((2, 5, 5), bool))


def test_v_prediction_is_refused(nets):
    sd = SimpleNamespace(scheduler=DDIMScheduler(prediction_type="v_prediction"))
    with pytest.raises(ValueError, match="v_prediction"):
        RefDiff(replace(nets, sd=sd))
