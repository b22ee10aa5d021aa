"""Readers of the RefCOCO family, on small files in each original format."""

import json
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest
from builders import SIZE, TEXTS, Evil, as_parquet, as_pickle, family, write_images
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask

from refdiff_lite.datasets.records import decode, read_json
from refdiff_lite.datasets.refer import PUBLISHED, load_refer, read_pickle


@pytest.mark.parametrize("write", [as_pickle, as_parquet])
def test_every_format_gives_the_same_records(tmp_path, write):
    write(tmp_path)
    write_images(tmp_path / "train2014")
    samples, about = load_refer("refcoco", "val", tmp_path)
    assert about == {"split_by": "unc", "refs": 3, "published_refs": 3811}
    assert [s.image_id for s in samples] == [3, 7]
    dog, people = samples
    assert [(r.sent_id, r.text, r.style) for r in people.records] == [
        (10, TEXTS[0], "refcoco"), (11, TEXTS[1], "refcoco"), (12, TEXTS[2], "refcoco"), (30, "crowd", "refcoco"),
    ]  # fmt: skip
    assert people.masks.shape == (2, *SIZE)
    man, crowd = (people.masks[people.records[i].target] for i in (0, 3))
    assert man[10, [10, 20, 30, 40]].tolist() == [True, True, True, False]  # the overlap is inside, too
    assert man.sum() == pytest.approx(30 * 20, abs=60)
    assert crowd.sum() == 100
    np.testing.assert_array_equal(np.flatnonzero(crowd.T), np.arange(400, 500))  # run lengths go down the columns
    assert dog.image().shape == (*SIZE, 3)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_pickles_of_every_age(tmp_path, protocol):
    as_pickle(tmp_path, protocol=protocol)
    assert read_pickle(tmp_path / "refcoco" / "refs(unc).p") == family()[1]


def test_a_pickle_as_python_2_wrote_it(tmp_path):
    """Byte strings (opcode U) are latin1, unicode (opcode X) is UTF-8, long is int."""
    path = tmp_path / "refs(unc).p"
    path.write_bytes(
        b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x03caf\x00U\x02idq\x03\x8a\x01\x05X\x01\x00\x00\x00sX\x02\x00\x00\x00\xc3\xb1ua.".replace(
            b"caf\x00", b"ca\xe9"
        )
    )
    assert read_pickle(path) == [{"sent": "caé", "id": 5, "s": "ñ"}]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (Evil(os.system, "touch {}"), "posix.system"),
        (Evil(eval, "open('{}', 'w')"), r"(builtins|__builtin__)\.eval"),
        (Evil(getattr, "x", "y"), r"(builtins|__builtin__)\.getattr"),
        (Evil(np.zeros, 3), "zeros"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_is_refused_by_name_and_runs_nothing(tmp_path, call, named, protocol):
    trace = tmp_path / "trace"
    call.args = tuple(a.format(trace) if isinstance(a, str) else a for a in call.args)
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([call], protocol=protocol))
    with pytest.raises(ValueError, match=named):
        read_pickle(tmp_path / "refs(unc).p")
    assert not trace.exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02]q\x00}", b"hello", b"\x80\x02cfoo\nbar\n.", b"\x80\x02Pwhere\n.", b"\x80\x02\x82\x01."]
)
def test_a_damaged_pickle_is_one_line(tmp_path, content):
    (tmp_path / "x.p").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.p is refused"):
        read_pickle(tmp_path / "x.p")


def test_a_pickle_of_another_shape(tmp_path):
    as_pickle(tmp_path)
    write_images(tmp_path / "train2014")
    for content in ({"a": 1}, [1], [{"split": "val"}], [{"split": "val", "ref_id": 1}]):
        (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=r"references|annotations"):
            load_refer("refcoco", "val", tmp_path)


@pytest.mark.parametrize(
    ("name", "split", "by", "said"),
    [
        ("coco", "val", None, r"choose one of refcoco, refcoco\+, refcocog"),
        ("refcoco", "test", None, r"\(unc\): choose one of val, testA, testB"),
        ("refcocog", "val", "unc", "choose one of umd, google"),
        ("refcocog", "test", "google", r"\(google\): choose one of val"),
        ("refcoco", "val", None, "no folder or zip of images"),
    ],
)
def test_unknown_names_are_refused_before_reading(tmp_path, name, split, by, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        load_refer(name, split, tmp_path, by=by)


def test_missing_annotations(tmp_path):
    write_images(tmp_path / "train2014")
    with pytest.raises(FileNotFoundError, match=r"neither instances\.json nor validation"):
        load_refer("refcoco", "val", tmp_path)


def test_merged_splits_are_explained(tmp_path, monkeypatch):
    as_pickle(tmp_path)
    write_images(tmp_path / "train2014")
    monkeypatch.setitem(PUBLISHED["refcoco"]["unc"], "val", 2)
    with pytest.raises(ValueError, match=r"should hold 2 references, this file holds 3.*two partitions"):
        load_refer("refcoco", "val", tmp_path)


def test_a_reference_given_twice_is_explained(tmp_path):
    as_pickle(tmp_path)
    write_images(tmp_path / "train2014")
    refs = family()[1]
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs + refs[:1]))
    with pytest.raises(ValueError, match=r"some twice \(ref_id 1\)"):
        load_refer("refcoco", "val", tmp_path)


def test_parquet_of_another_layout_is_explained(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_images(tmp_path / "train2014")
    (tmp_path / "refcoco").mkdir()
    rows = [{"question_id": "1", "answer": ["a"], "segmentation": [0.5], "file_name": "x.jpg"}]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "refcoco" / "validation-0.parquet"))
    with pytest.raises(ValueError, match="lmms-lab/RefCOCO also mix"):
        load_refer("refcoco", "val", tmp_path)


def test_parquet_without_its_package(tmp_path, monkeypatch):
    as_parquet(tmp_path)
    write_images(tmp_path / "train2014")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"refdiff-lite\[parquet\]"):
        load_refer("refcoco", "val", tmp_path)


def test_parquet_that_holds_two_splits(tmp_path):
    as_parquet(tmp_path, split="testA", stem="validation")
    write_images(tmp_path / "train2014")
    with pytest.raises(ValueError, match="references of testA"):
        load_refer("refcoco", "val", tmp_path)


def test_images_in_a_zip_and_a_missing_one(tmp_path):
    as_pickle(tmp_path)
    write_images(tmp_path / "images", ids=(7,))
    with zipfile.ZipFile(tmp_path / "train2014.zip", "w") as archive:
        archive.write(
            tmp_path / "images" / "COCO_train2014_000000000007.jpg", "train2014/COCO_train2014_000000000007.jpg"
        )
    samples, _ = load_refer("refcoco", "val", tmp_path)
    missing, there = samples
    assert (missing.found, there.found) == (False, True)
    assert there.image().shape == (*SIZE, 3)
    with pytest.raises(FileNotFoundError, match=r"no image 3 in .*train2014.zip"):
        missing.image()


def test_images_in_a_folder_and_a_missing_one(tmp_path):
    as_pickle(tmp_path)
    write_images(tmp_path / "elsewhere" / "train2014", ids=(3,))
    samples, _ = load_refer("refcoco", "val", tmp_path, tmp_path / "elsewhere")
    assert [s.found for s in samples] == [True, False]
    with pytest.raises(FileNotFoundError, match="no image 7"):
        samples[1].image()


def test_an_image_of_another_size(tmp_path):
    as_pickle(tmp_path)
    write_images(tmp_path / "train2014")
    Image.new("RGB", (20, 20)).save(tmp_path / "train2014" / "COCO_train2014_000000000003.jpg")
    with pytest.raises(ValueError, match=r"image 3 is \(20, 20\), its annotations say \(40, 60\)"):
        load_refer("refcoco", "val", tmp_path)[0][0].image()


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "/etc/COCO_train2014_000000000003.jpg", "a/../../b.jpg", "..\\evil.jpg"]
)
def test_a_zip_that_points_outside_is_refused(tmp_path, name):
    as_pickle(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, b"x")
    before = sorted(p for p in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="points outside"):
        load_refer("refcoco", "val", tmp_path, tmp_path / "x.zip")
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_no_zip(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match="not a readable zip"):
        load_refer("refcoco", "val", tmp_path, tmp_path / "x.zip")


def test_a_symlink_loop_is_a_missing_image(tmp_path):
    as_pickle(tmp_path)
    folder = tmp_path / "train2014"
    write_images(folder, ids=(7,))
    (folder / "COCO_train2014_000000000003.jpg").symlink_to(folder / "COCO_train2014_000000000003.jpg")
    (folder / "loop").symlink_to(folder)
    assert [s.found for s in load_refer("refcoco", "val", tmp_path)[0]] == [False, True]
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(FileNotFoundError, match="no folder or zip"):
        load_refer("refcoco", "val", tmp_path, tmp_path / "circle")


@pytest.mark.parametrize(
    ("text", "said"),
    [('{"a": NaN}', "not finite"), ("[Infinity]", "not finite"), ("[1e999]", "not finite"), ("[" + "9" * 5000 + "]", "sound JSON"),
     ("[" * 100_000, "nested"), ("{", "sound JSON"), ("\ufeff[]", "sound JSON")],
)  # fmt: skip
def test_json_that_is_none(tmp_path, text, said):
    (tmp_path / "instances.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        read_json(tmp_path / "instances.json")


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([[0, 0, 1e300, 0, 5, 5]], "far outside"), ([[0, 0, 1, 1]], "three corners"), ([], "three corners"),
        ([["a"] * 6], "damaged"), (None, "damaged"), ({"size": [40, 60], "counts": [1]}, "run lengths"),
        ({"size": [40, 60], "counts": [-5, 2405]}, "run lengths"), ({"size": [9, 9], "counts": "x"}, "run lengths"),
        ({"size": [40, 60], "counts": "zzzzzzzzzzzz"}, "run lengths"), ({"counts": "x"}, "damaged"),
    ],
)  # fmt: skip
def test_a_damaged_segmentation(segmentation, said):
    with pytest.raises(ValueError, match=said):
        decode(segmentation, SIZE)


@settings(max_examples=50, deadline=None)
@given(arrays(bool, (23, 31)))
def test_compressed_run_lengths_are_pycocotools(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
    np.testing.assert_array_equal(decode(text, (23, 31)), mask)


@pytest.mark.parametrize("change", [{"height": 10**9}, {"width": -1}, {"height": "x"}])
def test_an_image_entry_of_absurd_size(tmp_path, change):
    as_pickle(tmp_path)
    write_images(tmp_path / "train2014")
    instances = family()[0]
    instances["images"][0] |= change
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps(instances))
    with pytest.raises(ValueError, match=r"image 7 of|invalid literal"):
        load_refer("refcoco", "val", tmp_path)


def test_a_digest_changes_with_what_is_said_and_with_the_mask(tmp_path):
    as_pickle(tmp_path)
    write_images(tmp_path / "train2014")
    first = [s.digest() for s in load_refer("refcoco", "val", tmp_path)[0]]
    assert first == [s.digest() for s in load_refer("refcoco", "val", tmp_path)[0]]
    instances = family()[0]
    instances["annotations"][2]["segmentation"] = [[5, 5, 25, 5, 25, 26, 5, 25]]
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps(instances))
    again = [s.digest() for s in load_refer("refcoco", "val", tmp_path)[0]]
    assert (again[0] != first[0], again[1] == first[1]) == (True, True)
