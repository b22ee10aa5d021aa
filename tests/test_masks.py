"""Masks on disk, by image content and settings."""

import json

import numpy as np
import pytest
import torch

from refdiff_lite.masks import cached


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
