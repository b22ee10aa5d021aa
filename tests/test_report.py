"""The report: one file, nothing fetched, nothing that the data wrote is run."""

import re

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from refdiff_lite.config import RefDiffConfig
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.report import picture, write_report
from refdiff_lite.summary import gains, slices, summarise

EVIL = '<script>alert("x")</script> & cat'


@pytest.fixture
def page(tmp_path):
    samples = load_toyref("val", "noun", 4)
    rows = []
    for s in samples:
        for r in s.records:
            for variant in ("full", "random"):
                empty = coco_mask.encode(np.zeros(s.size, np.uint8, order="F"))["counts"].decode()
                rows.append({
                    "image_id": s.image_id, "sent_id": r.sent_id, "style": "noun", "text": EVIL, "variant": variant,
                    "intersection": 0, "union": 10, "iou": 0.0, "hit": False, "objects": 3, "same": 0, "area": 10,
                    "pixels": 100, "cues": [], "rle": empty,
                } | ({"alpha_iou": [0.1] * 11, "recall": 0.6} if variant == "full" else {}))  # fmt: skip
    rows[-1] |= {"error": f"ValueError: {EVIL}"}
    lead = [r for r in rows if r["variant"] == "full"]
    summary = {
        "variant": "full", **summarise(lead), "data": "toyref", "split": "val", "proposals": "oracle", "preset": "toy",
        "seed": 0, "images_total": 9, "complete": False, "missing_images": [5], "slices": slices(lead), "gains": gains(rows),
        "variants": {v: {"all": summarise([r for r in rows if r["variant"] == v])} for v in ("full", "random")},
        "published": [{"method": "Ref-Diff", "metric": "mIoU", "value": 37.21}], "comparable": ["a note"],
        "config": RefDiffConfig.toy().to_dict(),
    }  # fmt: skip
    write_report(tmp_path / "report.html", summary, rows, samples)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    return (tmp_path / "report.html").read_text()


def test_the_page_is_whole_and_alone(page):
    assert page.count("data:image/svg+xml;base64,") == 4
    assert page.count("data:image/jpeg;base64,") >= 2
    assert set(re.findall(r'(?:src|href)="(.{5})', page)) == {"data:"}
    for words in ("Not all images", "1 images are missing", "1 rows failed", "37.21", "a note", "0.0 (0–0)"):
        assert words in page, words


def test_what_the_data_wrote_is_escaped(page):
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 3


def test_a_picture_shows_both_masks():
    import io
    from base64 import b64decode

    from PIL import Image

    grey = np.full((50, 100, 3), 128, np.uint8)
    truth, mask = np.zeros((2, 50, 100), bool)
    truth[10:40, 10:40], mask[10:40, 60:90] = True, True
    drawn = np.array(Image.open(io.BytesIO(b64decode(picture(grey, truth, mask, 200)))), int)
    assert drawn.shape == (100, 200, 3)
    assert drawn[50, 150, 0] - drawn[50, 150, 2] > 40  # inside the chosen mask: orange
    assert abs(drawn[50, 50] - 128).max() < 12  # inside the truth: as it was
    assert drawn[50, 20, 2] - drawn[50, 20, 0] > 80  # on the truth's rim: blue
    assert abs(drawn[5, 5] - 128).max() < 6
