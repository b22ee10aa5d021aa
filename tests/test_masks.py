"""One decoder and one validator of masks; masks on disk, by image content and settings."""

import json
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask

from refdiff_lite.masks import MAX_OUTLINE, MAX_PARTS, as_masks, blank, cached, decode, from_rle, to_rle

SIZE = (20, 30)
MASKS = np.random.default_rng(0).random((3, *SIZE)) > 0.5


def kinds():
    """The same three masks as people have them."""
    rle = [to_rle(m) for m in MASKS]
    counts = [np.diff(np.flatnonzero(np.diff(np.r_[2, m.T.ravel(), 2]))).tolist() for m in MASKS]
    plain = [{"size": [20, 30], "counts": c if not m[0, 0] else [0, *c]} for m, c in zip(MASKS, counts, strict=True)]
    return {
        "bool": MASKS,
        "0 and 1": MASKS.astype(np.int64),
        "0 and 255": MASKS.astype(np.uint8) * 255,
        "labels": [m.astype(np.int32) * n for n, m in enumerate(MASKS, start=4)],
        "floats": MASKS.astype(np.float16),
        "floats to 255": MASKS * 255.0,
        "a list": list(MASKS),
        "a tuple": tuple(MASKS.astype(np.uint8)),
        "nested lists": MASKS.tolist(),
        "numbers in lists": MASKS.astype(int).tolist(),
        "pictures": [Image.fromarray(m) for m in MASKS],
        "grey pictures": [Image.fromarray(m.astype(np.uint8) * 255) for m in MASKS],
        "a tensor": torch.from_numpy(MASKS),
        "half precision": torch.from_numpy(MASKS).bfloat16().requires_grad_(),
        "tensors": [torch.from_numpy(m).float() for m in MASKS],
        "SAM's": [{"segmentation": m, "area": 5, "bbox": [0, 0, 1, 1]} for m in MASKS],
        "SAM's in run lengths": [{"segmentation": r, "area": 5} for r in rle],
        "run lengths": rle,
        "run lengths in lists": plain,
    }


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_masks_is_the_same(kind):
    found = as_masks(kinds()[kind], (40, 60), SIZE)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, MASKS)


def test_one_mask_polygons_and_none():
    np.testing.assert_array_equal(as_masks(MASKS[0] * 255, SIZE), MASKS[:1])
    square = [{"id": 1, "image_id": 2, "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]]}]
    assert as_masks(square, SIZE)[0].sum() == pytest.approx(100, abs=21)
    for none in ([], np.zeros((0, *SIZE)), torch.zeros(0, *SIZE)):
        assert as_masks(none, SIZE).shape == (0, *SIZE)


def test_what_is_given_back_is_not_what_was_given():
    given = MASKS.copy()
    as_masks(given, SIZE)[:] = False
    np.testing.assert_array_equal(given, MASKS)


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        (np.random.default_rng(0).random((2, *SIZE)), "masks > 0.5"),
        (np.full((1, *SIZE), 0.3), "masks > 0.5"),
        (MASKS * 0.5, "masks > 0.5"),
        (MASKS * 2.0 - 1, "logits"),
        (np.full((1, *SIZE), np.nan), "masks > 0.5"),
        (np.full((1, *SIZE), np.inf), "masks > 0.5"),
        ([np.arange(600).reshape(SIZE)], "label image"),
        (MASKS.astype(np.int8) * -1, "not 0 and one other"),
        (MASKS.transpose(0, 2, 1), "shape"),
        (MASKS[:, None], "shape"),
        ([MASKS[0], MASKS[1][:5]], "shape"),
        (MASKS.astype(str), "<U5"),
        ([None], "shape"),
        ("mask.png", "shape"),
        (5, "not iterable"),
        ([{"segmentation": {"size": [20, 30], "counts": "x"}}], "damaged"),
        ([{"area": 5}], "size"),
    ],
)
def test_what_is_no_mask_is_refused(masks, said):
    with pytest.raises(ValueError, match=said) as error:
        as_masks(masks, SIZE)
    assert "(N, 20, 30)" in str(error.value)


def test_masks_of_two_accepted_sizes_do_not_mix():
    with pytest.raises(ValueError, match="one size"):
        as_masks([MASKS[0], np.zeros((40, 60), bool)], SIZE, (40, 60))


@settings(max_examples=50, deadline=None)
@given(arrays(bool, (23, 31)))
def test_run_lengths_are_pycocotools(mask):
    np.testing.assert_array_equal(from_rle(to_rle(mask)), mask)
    np.testing.assert_array_equal(decode(to_rle(mask) | {"counts": to_rle(mask)["counts"].encode()}, (23, 31)), mask)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(-60, 90), min_size=6, max_size=16), min_size=1, max_size=4))
def test_polygons_are_pycocotools(polygons):
    polygons = [[n / 2 for n in p[: len(p) // 2 * 2]] for p in polygons]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 20, 30))) > 0
    np.testing.assert_array_equal(decode(polygons, SIZE), expected)


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([[0, 0, 1e300, 0, 5, 5]], "far outside"), ([[float("nan")] * 6], "far outside"), ([[0, 0, 1, 1]], "three corners"),
        ([], "1 to"), (None, "1 to"), (5, "1 to"), ("abcdef", "1 to"), ([["a"] * 6], "three corners"), ([None], "three"),
        ([["1"] * 6], "three corners"), ([[True] * 6], "three corners"), ([[10**400] * 6], "three corners"),
        ([1, 2, 3, 4, 5, 6], "three corners"), ([{}], "three corners"), ([[[0, 0], [1, 1], [2, 2]]], "three corners"),
        ({"size": [20, 30], "counts": [1]}, "those of"), ({"size": [20, 30], "counts": [-5, 605]}, "those of"),
        ({"size": [20, 30], "counts": [2**63, 2**63]}, "those of"), ({"size": [20, 30], "counts": [600.0]}, "whole"),
        ({"size": [20, 30], "counts": [[600]]}, "whole"), ({"size": [20, 30], "counts": [10**30]}, "whole"),
        ({"size": [20, 30], "counts": []}, "list or a text"), ({"size": [20, 30], "counts": None}, "list or a text"),
        ({"size": [9, 9], "counts": "x"}, "those of"), ({"size": None, "counts": "x"}, "damaged"), ({"counts": "x"}, "no 'size'"),
        ({"size": [20, 30]}, "no 'counts'"), ({"size": [20, 30], "counts": "zzz"}, "cut short"),
        ({"size": [20, 30], "counts": "PPPPPPPPPP0"}, "beyond"), ({"size": [20, 30], "counts": "\udcff"}, "damaged"),
        ({"size": [20, 30], "counts": "PP"}, "cut short"), ({"size": [20, 30], "counts": "0"}, "those of"),
    ],
)  # fmt: skip
def test_a_damaged_segmentation(segmentation, said):
    with pytest.raises(ValueError, match=said) as error:
        decode(segmentation, SIZE)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("size", [(-20, -30), (0, 30), (10**9, 10**9), (20.5, 30), ("20", "30"), (20,), (None, 30), ()])
def test_a_size_that_is_none(size):
    for segmentation in ([[0, 0, 5, 0, 5, 5]], {"size": list(size), "counts": "0"}):
        with pytest.raises(ValueError, match="damaged segmentation"):
            decode(segmentation, size)


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ({"size": [480, 640], "counts": "P" * 2**20 + "0"}, "beyond"),
        ({"size": [480, 640], "counts": "0" * 30_000_000}, "list or a text"),
        ({"size": [480, 640], "counts": [0] * 5_000_001}, "list or a text"),
        ([(np.random.default_rng(0).random(100_000) * 600).tolist()], f"at most {MAX_OUTLINE}"),
        ([[0, 0, 1, 0, 1, 1]] * (MAX_PARTS + 1), f"1 to {MAX_PARTS}"),
    ],
)
def test_what_costs_without_end_is_refused_in_a_second(segmentation, said):
    start = time.process_time()
    with pytest.raises(ValueError, match=said):
        decode(segmentation, (480, 640))
    assert time.process_time() - start < 2


def test_fifty_thousand_corners_and_ten_thousand_parts_are_decoded_if_they_are_short():
    rng = np.random.default_rng(0)
    outline = np.cumsum(rng.normal(size=(50_000, 2)), 0).clip(0, 400).ravel().tolist()
    squares = rng.random((MAX_PARTS, 1, 2)) * 400 + np.array([[0, 0], [9, 0], [9, 9], [0, 9]])
    for segmentation in ([outline], squares.reshape(MAX_PARTS, 8).tolist()):
        expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, 480, 640))) > 0
        np.testing.assert_array_equal(decode(segmentation, (480, 640)), expected)


def test_more_masks_than_memory_holds():
    with pytest.raises(ValueError, match="more than memory should hold"):
        blank(100, (7000, 7000))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("REFDIFF_CACHE", str(tmp_path))
    return tmp_path / "masks"


IMAGE = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)


def ask(masks, image=IMAGE, **settings):
    """The masks, and whether they were computed."""
    calls = []
    return cached(image, settings, lambda: calls.append(1) or masks), bool(calls)


@pytest.mark.parametrize("count", [0, 3])
def test_round_trip(folder, count):
    masks = torch.rand(count, 20, 30, generator=torch.Generator().manual_seed(0)) > 0.5
    assert ask(masks)[1]
    found, computed = ask(None)
    assert not computed
    assert found.dtype == torch.bool
    assert torch.equal(found, masks)
    assert not list(folder.glob("*.partial*"))


def test_other_pixels_shapes_and_settings_are_other_entries(folder):
    masks = torch.ones(1, 20, 30, dtype=torch.bool)
    ask(masks, sam="a")
    other = IMAGE.copy()
    other[3, 4, 1] += 1
    assert ask(masks, other, sam="a")[1]
    assert ask(masks, sam="b")[1]
    assert ask(masks, IMAGE.reshape(30, 20, 3), sam="a")[1]
    assert not ask(masks, np.asfortranarray(IMAGE), sam="a")[1]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', '[{"size": [2, 2], "counts": "04"}]', "\udcff"])
def test_a_damaged_file_is_written_anew(folder, content):
    masks = torch.ones(1, 20, 30, dtype=torch.bool)
    ask(masks)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(content.encode(errors="surrogateescape"))
    found, computed = ask(masks)
    assert computed
    assert torch.equal(found, masks)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda runs: runs[0].update(counts=runs[0]["counts"][:5]),
        lambda runs: runs[0].update(counts=runs[0]["counts"].swapcase()),
        lambda runs: runs[0].update(to_rle(MASKS[1])),  # sound, but another mask
        lambda runs: runs.pop(),
        lambda runs: runs.append(runs[0]),
    ],
)
def test_a_changed_file_counts_as_absent(folder, damage):
    masks = torch.from_numpy(MASKS)
    ask(masks)
    (path,) = folder.iterdir()
    kept = json.loads(path.read_text())
    damage(kept["masks"])
    path.write_text(json.dumps(kept))
    found, computed = ask(masks)
    assert computed
    assert torch.equal(found, masks)


def test_masks_that_cannot_be_kept_are_not_lost(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    masks = torch.from_numpy(MASKS)
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        monkeypatch.setenv("REFDIFF_CACHE", str(place))
        with pytest.warns(UserWarning, match="cannot be kept"):
            assert torch.equal(ask(masks)[0], masks)
