"""Masks on disk, by image content and settings."""

import json

import numpy as np
import pytest
import torch

from refdiff_lite.masks import cached, keep, unique


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
    path.write_bytes(content.encode(errors="surrogateescape"))
    found, computed = ask(masks)
    assert computed
    assert torch.equal(found, masks)
    assert json.loads(path.read_text())[0]["size"] == [20, 30]


def bars(*areas):
    masks = torch.zeros(len(areas), 4, 10, dtype=torch.bool)
    for mask, area in zip(masks, areas, strict=True):
        mask.view(-1)[:area] = True
    return masks


@pytest.mark.parametrize(
    ("largest", "min_area", "kept"),
    [
        (None, 0, [30, 20, 10, 5]),
        (2, 0, [30, 20]),
        (99, 0, [30, 20, 10, 5]),
        (None, 7, [30, 20, 10]),
        (None, 10, [30, 20, 10]),
        (3, 15, [30, 20]),
        (None, 1000, []),
    ],
)
def test_keep_sorts_by_area_and_filters(largest, min_area, kept):
    assert keep(bars(5, 20, 0, 30, 10), largest, min_area).sum((1, 2)).tolist() == kept


def test_keep_is_stable_and_takes_no_masks():
    masks = bars(5, 5)
    masks[1] = masks[1].flip(-1)
    assert torch.equal(keep(masks, None, 0), masks)
    assert keep(masks[:0], 3, 0).shape == (0, 4, 10)


def test_unique_drops_later_near_duplicates():
    masks = torch.zeros(5, 20, 20, dtype=torch.bool)
    masks[0, :10], masks[1, 10:], masks[2, :10], masks[3, :12] = True, True, True, True
    masks[2, 0, 0] = False  # IoU 0.995 with the first
    assert torch.equal(unique(masks), masks[[0, 1, 3, 4]])
    assert torch.equal(unique(masks, iou=0.8), masks[[0, 1, 4]])
    assert unique(masks[:0]).shape == (0, 20, 20)
