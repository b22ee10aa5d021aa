"""What a sentence gets: it stands alone and tells what it is."""

import pickle

import numpy as np
import pytest

from refdiff_lite import RefDiff
from refdiff_lite.masks import from_rle


@pytest.fixture(scope="module")
def scene(nets, sample):
    return RefDiff(nets).set_image(sample.path, oracle=sample.masks)


def test_to_dict_holds_the_mask_as_rle(scene, sample):
    result = scene.segment(sample.records[0].text)
    np.testing.assert_array_equal(from_rle(result.to_dict()["rle"]), result.mask)


def test_a_result_stands_alone(scene, sample):
    result = scene.segment(sample.records[0].text)
    stored = pickle.dumps(result)
    assert len(stored) < 500_000
    assert pickle.loads(stored) == result
    assert result != scene.segment(sample.records[1].text)
    assert result != "a mask"


def test_what_is_handed_out_is_not_what_is_kept(nets, sample):
    scene = RefDiff(nets).set_image(sample.path, oracle=sample.masks)
    text = sample.records[0].text
    before = scene.segment(text)
    kept = pickle.loads(pickle.dumps(before))
    before.word_map.fill(0)
    before.mask[:] = True
    before.scores["S_G"].zero_()
    scene.word_map(before.expression).zero_()
    for array in (before.proposals, before.image, scene.image):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    assert scene.segment(text) == kept
    np.testing.assert_array_equal(scene.segment(text).word_map, kept.word_map)
