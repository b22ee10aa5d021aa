"""The photographs: files in step with the outlines, things behind others without what those cover, licences told."""

import json

import numpy as np
import pytest

from refdiff_lite.datasets.photos import load_photos
from refdiff_lite.evaluation.metrics import iou
from refdiff_lite.expression import parse
from refdiff_lite.files import data_dir
from studies.photos import annotate

FOLDER = data_dir() / "photos"


@pytest.fixture(scope="module")
def outlines():
    return json.loads((FOLDER / "outlines.json").read_text())


def test_the_files_are_those_that_the_outlines_give(outlines):
    instances, refs = annotate(outlines)
    assert json.loads((FOLDER / "instances.json").read_text()) == instances
    assert json.loads((FOLDER / "refs.json").read_text()) == refs


def test_every_photograph_has_its_things_sentences_and_licence(outlines):
    samples = load_photos()
    assert len(samples) == len(outlines) >= 6
    for sample, photo in zip(samples, outlines.values(), strict=True):
        assert sample.image().shape == (*photo["size"], 3)
        assert sample.path.stat().st_size < 200_000
        assert photo["licence"] in ("public domain", "CC0", "CC BY 2.0")
        assert photo["source"]
        assert 3 <= len(sample.records) <= 7
        assert not [r for r in sample.records if sample.why_not(r)]
        assert {r.target for r in sample.records} == set(range(len(sample.masks)))
        assert all(m.sum() > 100 for m in sample.masks)


def test_what_stands_behind_loses_what_is_covered(outlines):
    for sample, photo in zip(load_photos(), outlines.values(), strict=True):
        masks = dict(zip([t["name"] for t in photo["things"]], sample.masks, strict=True))
        for thing in photo["things"]:
            for other in thing["behind"]:
                assert not (masks[thing["name"]] & masks[other]).any()
    cup, saucer = load_photos()[1].masks[:2]
    assert not np.any(cup & saucer)


def test_masks_follow_the_edges_of_the_pictures():
    """The big flower, on its dark ground: a threshold of redness gives nearly the same mask as the hand."""
    sample = next(s for s in load_photos() if s.path.name == "flower.jpg")
    image = sample.image().astype(int)
    flower = (image[..., 0] - image[..., 2] > 40) & (image[..., 0] > 120)
    flower[355:] = False
    assert iou(flower, sample.masks[0]) > 0.95


def test_the_rule_is_sure_of_nearly_every_head():
    texts = [r.text for s in load_photos() for r in s.records]
    assert sum(bool(parse(t).doubt) for t in texts) <= len(texts) // 10
