"""The stages together, on the bundled networks."""

import numpy as np
import pytest

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.config import VARIANTS


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
    assert all(len(s) == len(result.proposals) for s in result.scores.values())
    assert result.best == int(result.scores["S"].argmax())


def test_same_seed_same_masks_other_seed_other_noise(nets, sample):
    text = sample.records[0].text

    def maps(seed):
        return RefDiff(nets, RefDiffConfig.toy(seed=seed)).set_image(sample.path).segment(text, "full").word_map

    np.testing.assert_array_equal(maps(0), maps(0))
    assert not np.array_equal(maps(0), maps(1))


def test_two_sentences_name_two_objects(scene, sample):
    results = [scene.segment(r.text) for r in sample.records]
    assert len({r.mask.tobytes() for r in results}) == len(results)
