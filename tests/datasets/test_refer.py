"""Readers of the RefCOCO family, on small files in each original format."""

import json
import pickle
import sys
import zipfile

import numpy as np
import pytest
from builders import SIZE, TEXTS, as_parquet, as_pickle, family, write_images
from PIL import Image

from refdiff_lite.datasets.refer import PUBLISHED, load_refer


@pytest.mark.parametrize("write", [as_pickle, as_parquet])
def test_every_format_gives_the_same_records(tmp_path, write):
    write(tmp_path)
    write_images(tmp_path / "train2014")
    samples, about = load_refer("refcoco", "val", tmp_path)
    assert about == {"split_by": "unc", "refs": 3, "published_refs": 3811, "problems": 0}
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


def test_a_pickle_of_another_shape(tmp_path):
    as_pickle(tmp_path)
    write_images(tmp_path / "train2014")
    for content in ({"a": 1}, [1], [{"split": "val"}], [{"split": "val", "ref_id": 1}], [[[1]]], "text", None):
        (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=r"list of references|not one sentence"):
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
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"refdiff-lite\[parquet\]"):
        load_refer("refcoco", "val", tmp_path)


def test_parquet_that_holds_two_splits(tmp_path):
    as_parquet(tmp_path, split="testA", stem="validation")
    write_images(tmp_path / "train2014")
    with pytest.raises(ValueError, match="references of testA"):
        load_refer("refcoco", "val", tmp_path)


def write_parquet(root, change):
    """The hub's copy, with its columns changed."""
    as_parquet(root)
    write_images(root / "train2014")
    pq = pytest.importorskip("pyarrow.parquet")
    (path,) = (root / "refcoco" / "data").iterdir()
    columns = pq.read_table(path).to_pydict()
    pa = pytest.importorskip("pyarrow")
    pq.write_table(pa.table(change(columns)), path)
    return path


@pytest.mark.parametrize("column", ["raw_image_info", "raw_anns", "sentences", "image_id", "ann_id"])
@pytest.mark.parametrize("value", [None, "null", "[1]", "{", '{"a": NaN}'])
def test_a_bad_cell_of_parquet_is_one_reference(tmp_path, column, value):
    if column in ("sentences", "image_id", "ann_id"):
        value = None
    write_parquet(tmp_path, lambda columns: columns | {column: [*columns[column][:1], value, *columns[column][2:]]})
    samples, about = load_refer("refcoco", "val", tmp_path)
    records = [(s, r) for s in samples for r in s.records]
    assert about["problems"] == 1
    assert [r.text for s, r in records if not (s.problem or r.problem)] == [*TEXTS, "crowd"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda columns: {k: columns[k] for k in ("ref_id", "split")}, "lacks ann_id"),
        (lambda columns: columns | {"image_id": ["a"] * 3}, "not one sentence"),
        (lambda columns: columns | {"sentences": [1, 2, 3]}, "not one sentence"),
        (lambda columns: columns | {"raw_anns": [1.5] * 3}, "not one sentence"),
        (lambda columns: columns | {"split": [None] * 3}, "also holds references of None"),
        (lambda columns: {k: v * 40_000 for k, v in columns.items()}, "120000 rows"),
        (lambda columns: {k: v[:0] for k, v in columns.items()}, "no references"),
    ],
)
def test_parquet_of_other_columns_types_and_lengths(tmp_path, change, said):
    write_parquet(tmp_path, change)
    with pytest.raises(ValueError, match=said):
        load_refer("refcoco", "val", tmp_path)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_parquet_cut_short(tmp_path, share):
    path = write_parquet(tmp_path, lambda columns: columns)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"parquet is damaged or no parquet file") as error:
        load_refer("refcoco", "val", tmp_path)
    assert "\n" not in str(error.value).strip()


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


@pytest.mark.parametrize("orientation", [2, 3, 4, 6])
def test_annotations_refer_to_the_pixels_as_stored(tmp_path, orientation):
    as_pickle(tmp_path)
    write_images(tmp_path / "train2014")
    stored, exif = np.zeros((*SIZE, 3), np.uint8), Image.Exif()
    stored[5:25, 5:25] = 255
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "train2014" / f"COCO_train2014_{3:012d}.jpg", exif=exif, quality=95)
    dog = load_refer("refcoco", "val", tmp_path)[0][0]
    assert dog.image()[dog.masks[0]].mean() > 240


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
