"""JSON and zips that may be damaged."""

import zipfile

import pytest
from builders import SIZE, as_pickle, write_images
from PIL import Image

from refdiff_lite.datasets.formats import read_json
from refdiff_lite.datasets.refer import load_refer


@pytest.mark.parametrize(
    ("text", "said"),
    [('{"a": NaN}', "not finite"), ("[Infinity]", "not finite"), ("[1e999]", "not finite"), ("[" + "9" * 5000 + "]", "sound JSON"),
     ("[" * 100_000, "nested"), ("{", "sound JSON"), ("\ufeff[]", "sound JSON"), ("\udcff", "sound JSON"), ("", "sound JSON")],
)  # fmt: skip
def test_json_that_is_none(tmp_path, text, said):
    (tmp_path / "instances.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=said):
        read_json(tmp_path / "instances.json")


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


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_of_a_zip(tmp_path, method):
    as_pickle(tmp_path)
    write_images(tmp_path / "images")
    name = "COCO_train2014_000000000007.jpg"
    with zipfile.ZipFile(tmp_path / "train2014.zip", "w", method) as archive:
        archive.write(tmp_path / "images" / name, name)
    content = bytearray((tmp_path / "train2014.zip").read_bytes())
    content[60:200] = bytes(140)
    (tmp_path / "train2014.zip").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be unpacked") as error:
        load_refer("refcoco", "val", tmp_path)[0][1].image()
    assert "0x" not in str(error.value)


def test_a_zip_that_was_replaced_is_read_anew(tmp_path):
    as_pickle(tmp_path)
    for colour in ("red", "blue"):
        Image.new("RGB", SIZE[::-1], colour).save(tmp_path / "a.png")
        with zipfile.ZipFile(tmp_path / "train2014.zip", "w") as archive:
            archive.write(tmp_path / "a.png", f"COCO_train2014_{7:012d}.jpg")
            archive.writestr("more", colour)
        assert load_refer("refcoco", "val", tmp_path)[0][1].image()[0, 0].argmax() == (0 if colour == "red" else 2)


def test_a_picture_in_a_zip_that_is_none_has_no_address(tmp_path):
    as_pickle(tmp_path)
    with zipfile.ZipFile(tmp_path / "train2014.zip", "w") as archive:
        archive.writestr(f"COCO_train2014_{7:012d}.jpg", b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match="not an image") as error:
        load_refer("refcoco", "val", tmp_path)[0][1].image()
    assert "0x" not in str(error.value)
