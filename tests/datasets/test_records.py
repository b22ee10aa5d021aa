"""Damaged annotations cost their own sentences only, and say why; nothing is dropped without a word."""

import json
from pathlib import Path

import pytest
from builders import BOX, SIZE, TEXTS, as_pickle, family, write_images

from refdiff_lite.datasets.records import build_samples, masks_of
from refdiff_lite.datasets.refer import load_refer


def built(change):
    """Samples of the family after a change to its instances and references, by image."""
    instances, refs = family()
    refs = refs[:3]
    change(instances, refs)
    samples = build_samples(instances, refs, lambda image: (Path("nowhere"), None), "refcoco")
    return {s.image_id: s for s in samples}


def fine(samples):
    """The sentences that can be answered."""
    return sorted(r.text for s in samples.values() for r in s.records if not s.why_not(r))


ALL = sorted([*TEXTS, "dog", "crowd"])


def entry(key, index, **new):
    return lambda instances, refs: instances[key][index].update(new)


def sentence(**new):
    return lambda instances, refs: refs[0]["sentences"][1].update(new)


@pytest.mark.parametrize(
    ("change", "lost", "said"),
    [
        (lambda i, r: None, [], None),
        # an image's entry
        (entry("images", 1, height=-40), ["dog"], "image 3 of -40×60"),
        (entry("images", 1, width=10**9), ["dog"], "image 3 of 40×1000000000"),
        (entry("images", 1, width=0), ["dog"], "image 3 of"),
        (entry("images", 1, height="40"), ["dog"], "image 3 of"),
        (entry("images", 1, height=40.5), ["dog"], "image 3 of"),
        (entry("images", 1, height=None), ["dog"], "image 3 of"),
        (entry("images", 1, height=10_000, width=10_000), ["dog"], "50 megapixels"),
        (lambda i, r: i["images"].pop(), ["dog"], "know no image 3"),
        (entry("images", 1, id="3"), ["dog"], "know no image 3"),
        (lambda i, r: i["images"].append(i["images"][1] | {"width": 61}), ["dog"], "two different images 3"),
        (lambda i, r: i["images"].append(dict(i["images"][1])), [], None),
        (lambda i, r: i["images"].extend([None, 5, {}, {"id": None}, {"id": [1]}]), [], None),
        # an object's
        (lambda i, r: i["annotations"].pop(), ["dog"], "no object 30"),
        (entry("annotations", 2, image_id=7), ["dog"], "no object 30"),
        (entry("annotations", 2, segmentation=[[1, 2]]), ["dog"], "three corners"),
        (entry("annotations", 2, segmentation=None), ["dog"], "damaged"),
        (entry("annotations", 2, segmentation={"size": [40, 60], "counts": "P" * 100}), ["dog"], "damaged"),
        (entry("annotations", 2, segmentation=[[[[[[1]]]]]]), ["dog"], "damaged"),
        (lambda i, r: i["annotations"][2].pop("segmentation"), ["dog"], "damaged"),
        (entry("annotations", 2, category_id=None), [], None),
        (
            lambda i, r: i["annotations"].insert(2, i["annotations"][2] | {"segmentation": [[0] * 6]}),
            ["dog"],
            "two different",
        ),
        (lambda i, r: i["annotations"].append(dict(i["annotations"][2])), [], None),
        # a reference's
        (lambda i, r: r[1].update(image_id=9), ["dog"], "know no image 9"),
        (lambda i, r: r[1].pop("image_id"), ["dog"], "names no image"),
        (lambda i, r: r[1].update(image_id=10**400), ["dog"], "names no image"),
        (lambda i, r: r[1].update(ann_id=[]), ["dog"], "no object"),
        (lambda i, r: r[1].pop("sentences"), ["dog"], "no sentence"),
        (lambda i, r: r[1].update(sentences={"a": 1}), ["dog"], "no sentence"),
        # a sentence's
        (sentence(sent="\ud800 man"), [TEXTS[1]], "not Unicode"),
        (sentence(sent="man \udcff"), [TEXTS[1]], "not Unicode"),
        (sentence(sent=None), [TEXTS[1]], "no sentence"),
        (sentence(sent=["the", "man"]), [TEXTS[1]], "no sentence"),
        (sentence(sent_id=10), [TEXTS[1]], "number of another sentence, 10"),
        (sentence(sent_id="x"), [TEXTS[1]], "no number"),
        (sentence(style=5), [], None),
        (sentence(style="\ud800"), [], None),
    ],
)
def test_what_is_damaged_costs_its_own_sentences_and_says_why(change, lost, said):
    samples = built(change)
    assert fine(samples) == sorted(set(ALL) - set(lost))
    reasons = [s.why_not(r) for s in samples.values() for r in s.records]
    assert len(reasons) == 5  # each sentence is there, once
    assert [r for r in reasons if r] == [r for r in reasons if said and said in r]
    numbers = [r.sent_id for s in samples.values() for r in s.records]
    assert len(set(numbers)) == 5
    for s in samples.values():
        s.digest()
        json.dumps([[r.text, r.style] for r in s.records], ensure_ascii=False).encode()
        assert len(s.segmentations) == len(s.categories) > max(r.target for r in s.records)


@pytest.mark.parametrize(
    ("instances", "refs"),
    [
        ([], []), (None, []), ({}, []), ({"images": 5, "annotations": [], "categories": []}, []),
        ({"images": [], "annotations": {}, "categories": []}, []), (family()[0], [[1]]), (family()[0], [None]),
    ],
)  # fmt: skip
def test_what_is_no_coco_or_refer_at_all_is_refused(instances, refs):
    with pytest.raises(ValueError, match=r"not COCO's|not REFER's"):
        build_samples(instances, refs, lambda image: (Path("nowhere"), None))


def test_a_damaged_object_is_empty_and_the_others_keep_their_masks():
    person = built(entry("annotations", 0, segmentation=[[1]]))[7]
    with pytest.warns(UserWarning, match="image 7, object 0 counts as empty: damaged"):
        masks = person.masks
    assert masks.sum((1, 2)).tolist() == [0, 100]


def test_problems_are_counted_and_a_set_of_nothing_else_is_refused(tmp_path):
    as_pickle(tmp_path)
    write_images(tmp_path / "train2014")
    path = tmp_path / "refcoco" / "instances.json"
    instances = family()[0]
    instances["images"][1]["height"] = -1
    path.write_text(json.dumps(instances))
    assert load_refer("refcoco", "val", tmp_path)[1]["problems"] == 1
    instances["images"][0]["height"] = -1
    path.write_text(json.dumps(instances))
    with pytest.raises(ValueError, match=r"not one sentence in .* the first: image 7 of -1×60"):
        load_refer("refcoco", "val", tmp_path)


def coco(tmp_path, change=lambda found: None):
    found = family()[0]
    found["images"][1]["file_name"] = "train2014/dog.jpg"
    change(found)
    (tmp_path / "x.json").write_text(json.dumps(found))
    return tmp_path / "x.json"


def test_masks_of_an_image_by_its_name(tmp_path):
    masks = masks_of(coco(tmp_path), "dog.jpg", SIZE)
    assert masks.shape == (1, *SIZE)
    assert masks[0, 10, [10, 40]].tolist() == [True, False]
    assert masks_of(coco(tmp_path), "x_7.jpg", SIZE).shape == (2, *SIZE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found["images"][1].update(file_name="other.jpg"), "no masks for dog.jpg"),
        (lambda found: found["images"][0].update(file_name="dog.jpg"), "several images dog.jpg"),
        (lambda found: found["images"].append(found["images"][1] | {"height": 41}), "several images"),
        (
            lambda found: found["annotations"].append(found["annotations"][2] | {"segmentation": [[0] * 6]}),
            "several objects",
        ),
        (lambda found: found["annotations"].pop(), "no masks for"),
        (lambda found: found["images"][1].update(height=60, width=40), "stored as 40×60 pixels, .* says 60×40"),
        (lambda found: found["images"][1].update(height=-40), "image 3 of -40×60"),
        (lambda found: found["images"][1].pop("height"), "image 3 of None"),
        (lambda found: found["annotations"][2].update(segmentation=[[0, 0, 1e300, 0, 5, 5]]), "annotation 30: damaged"),
        (lambda found: found["annotations"][2].update(segmentation={"size": [9, 9], "counts": "x"}), "annotation 30"),
        (
            lambda found: found["annotations"][2].update(segmentation={"size": [40, 60], "counts": "zzzz"}),
            "annotation 30",
        ),
        (lambda found: found["annotations"][2].update(segmentation={"size": [40, 60], "counts": [-1, 2401]}), "30"),
        (lambda found: found["annotations"][2].update(segmentation=[[0, 0, 600, 400] * 20_000]), "outline"),
        (lambda found: found["annotations"][2].pop("segmentation"), "annotation 30"),
        (lambda found: found.pop("annotations"), "not COCO's"),
        (lambda found: found.update(images=5), "not COCO's"),
        (lambda found: found.update(images=[1, None]), "no masks for"),
    ],
)
def test_an_oracle_that_cannot_be_trusted_is_refused(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        masks_of(coco(tmp_path, change), "dog.jpg", SIZE)


def test_an_oracle_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file at"):
        masks_of(tmp_path / "none.json", "dog.jpg", SIZE)


def test_more_masks_than_memory_holds(tmp_path):
    def change(found):
        found["images"][1].update(height=7000, width=7000)
        found["annotations"] = [{"id": i, "image_id": 3, "segmentation": BOX} for i in range(1, 60)]

    with pytest.raises(ValueError, match="more than memory should hold"):
        masks_of(coco(tmp_path, change), "dog.jpg", (7000, 7000))
