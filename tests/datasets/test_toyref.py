"""The bundled files of ToyRef, and the reader of them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from refdiff_lite.datasets.toyref import SPLITS, STYLES, load_toyref
from refdiff_lite.expression import parse
from refdiff_lite.files import data_dir
from refdiff_lite.toy import phrases
from refdiff_lite.toy.build_dataset import SCENES, build_split
from refdiff_lite.toy.scenes import HELD_OUT, SPLIT_SEEDS, categories, make_scene
from refdiff_lite.variants.relations import measure


@pytest.fixture(scope="module")
def splits():
    return {split: load_toyref(split) for split in SPLITS}


@pytest.fixture(scope="module")
def instances():
    return {s: json.loads((data_dir() / "toyref" / s / "instances.json").read_text()) for s in SPLITS}


@pytest.mark.parametrize(("split", "scenes", "sentences"), [("val", 150, 600), ("test", 150, 600), ("unseen", 50, 200)])
def test_size(splits, split, scenes, sentences):
    samples = splits[split]
    assert len(samples) == SCENES[split] >= scenes
    assert sum(len(s.records) for s in samples) >= sentences
    twins = sum(len(set(s.categories)) < len(s.categories) for s in samples)
    assert twins >= len(samples) / 4
    assert {r.style for s in samples for r in s.records} == set(STYLES) == set(phrases.STYLES)


@pytest.mark.parametrize("split", SPLITS)
def test_opens_in_pycocotools(split, capsys):
    folder = data_dir() / "toyref" / split
    coco = COCO(folder / "instances.json")
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        assert mask.shape == (128, 128)
        assert mask.sum() == annotation["area"] > 50
        y, x = np.nonzero(mask)
        assert annotation["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
    assert [c["name"] for c in coco.cats.values()] == list(categories())
    names = {i["file_name"] for i in coco.imgs.values()}
    assert names == {p.name for p in (folder / "images").iterdir()}


@pytest.mark.parametrize("split", SPLITS)
def test_references_belong_to_annotations(split, instances):
    annotations = {a["id"]: a for a in instances[split]["annotations"]}
    refs = json.loads((data_dir() / "toyref" / split / "refs.json").read_text())
    for ref in refs:
        annotation = annotations[ref["ann_id"]]
        assert (ref["image_id"], ref["category_id"]) == (annotation["image_id"], annotation["category_id"])
        assert ref["split"] == split
        assert ref["sent_ids"] == [s["sent_id"] for s in ref["sentences"]]
        assert all(s["tokens"] == s["sent"].split() for s in ref["sentences"])
    ids = [i for ref in refs for i in ref["sent_ids"]]
    assert len(set(ids)) == len(ids)
    assert len({ref["ref_id"] for ref in refs}) == len(refs)


@pytest.mark.parametrize("split", SPLITS)
def test_every_record_has_its_target(splits, split):
    for s in splits[split]:
        assert s.masks.shape == (len(s.categories), 128, 128)
        assert s.masks.dtype == bool
        assert s.masks.any((1, 2)).all()
        assert s.path.is_file()
        for r in s.records:
            assert 0 <= r.target < len(s.masks)
            head = r.text.split(" of the ")[0]
            assert s.categories[r.target] in head.split(), r.text


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("index", [0, 17, 59])
def test_files_are_what_the_seeds_draw(splits, split, index):
    sample, scene = splits[split][index], make_scene(split, index)
    assert sample.image_id == SPLIT_SEEDS[split] * 10_000 + index
    assert sample.categories == tuple(t.category for t in scene.things)
    np.testing.assert_array_equal(sample.masks, scene.masks)
    error = np.asarray(Image.open(sample.path)).astype(float) - scene.image
    assert 10 * np.log10(255**2 / np.square(error).mean()) > 30
    rng = np.random.default_rng([SPLIT_SEEDS[split], index, 1])
    for style in STYLES:
        said = phrases.expressions(scene.things, style, rng)
        assert {r.target: r.text for r in sample.records if r.style == style} == said


def test_writing_a_split_again_gives_the_same_annotations(tmp_path, instances):
    counts = build_split("unseen", 3, tmp_path)
    again = json.loads((tmp_path / "unseen" / "instances.json").read_text())
    ids = [i["id"] for i in again["images"]]
    assert counts["scenes"] == len(ids) == 3
    assert again["images"] == instances["unseen"]["images"][:3]
    assert again["annotations"] == [a for a in instances["unseen"]["annotations"] if a["image_id"] in ids]
    refs = [json.loads((p / "unseen" / "refs.json").read_text()) for p in (tmp_path, data_dir() / "toyref")]
    assert refs[0] == [r for r in refs[1] if r["image_id"] in ids]
    assert sum(len(r["sentences"]) for r in refs[0]) == counts["expressions"]


def test_style_and_limit(splits):
    for style in STYLES:
        samples = load_toyref("unseen", style)
        assert {r.style for s in samples for r in s.records} == {style}
    by_style = sum(len(s.records) for style in STYLES for s in load_toyref("unseen", style))
    assert by_style == sum(len(s.records) for s in splits["unseen"])
    assert [s.image_id for s in load_toyref("val", limit=5)] == [s.image_id for s in splits["val"][:5]]


def test_wrong_split_and_style():
    with pytest.raises(ValueError, match=r"unknown split 'train': choose one of val, test, unseen"):
        load_toyref("train")
    with pytest.raises(ValueError, match=r"unknown style 'refcoco': choose one of noun"):
        load_toyref("val", "refcoco")


def test_no_scene_is_in_two_splits():
    things = [make_scene(s, i, 16).things for s, n in {"train": 300, **SCENES}.items() for i in range(n)]
    assert len(set(things)) == len(things)


def test_held_out_pairs_in_the_files(instances):
    def pairs(split):
        names = {c["id"]: c["name"] for c in instances[split]["categories"]}
        return {(names[a["category_id"]], a["tint"]) for a in instances[split]["annotations"]}

    assert not (pairs("val") | pairs("test")) & HELD_OUT
    assert pairs("unseen") >= HELD_OUT


@pytest.mark.parametrize("split", SPLITS)
def test_ordinals_are_a_style_of_their_own(split, splits):
    """Each names one thing; what the other styles hold is untouched by them."""
    found = load_toyref(split, "toyref-ord")
    texts = [r.text for s in found for r in s.records]
    assert len(texts) >= 150
    assert not any(r.problem for s in found for r in s.records)
    assert all(parse(t).ordinal is not None and parse(t).cues == () for t in texts)
    numbers = {r.sent_id for s in splits[split] for r in s.records}
    assert not numbers & {r.sent_id for s in found for r in s.records}
    right = 0
    for s in found:
        for r in s.records:
            ordinal = parse(r.text).ordinal
            group = [i for i, c in enumerate(s.categories) if ordinal.core in ("", c, f"the {c}")]
            amount = measure(torch.from_numpy(s.masks[group]), ordinal.by)
            right += group[int(amount.argsort(descending=True)[ordinal.number - 1])] == r.target
    assert right >= 0.97 * len(texts)  # by visible pixels; the text counts centres, a thing may hide a part of another
