"""The report: one file, nothing fetched, nothing that the data wrote is run."""

import re

import numpy as np
import pytest

from refdiff_lite.evaluation.report import picture


@pytest.fixture
def page(report):
    assert [p.name for p in report.parent.iterdir()] == ["report.html"]
    return report.read_text()


def test_the_page_is_whole_and_alone(page):
    assert page.count("data:image/svg+xml;base64,") == 4
    assert page.count("data:image/jpeg;base64,") >= 2
    assert set(re.findall(r'(?:src|href)="(.{5})', page)) == {"data:"}
    for words in (
        "Not all images",
        "1 images are missing",
        "1 rows failed",
        "37.21",
        "a note",
        "0.0 (0–49)",
        "mIoU by style",
    ):
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
    assert abs(drawn[50, 150] - 128).max() < 12  # inside the chosen mask: as it was
    assert drawn[50, 120, 0] - drawn[50, 120, 2] > 80  # on its rim: orange
    assert drawn[50, 50].max() < 100  # outside it, within the truth too: dimmed
    assert drawn[50, 20, 2] - drawn[50, 20, 0] > 80  # on the truth's rim: blue
    assert drawn[5, 5].max() < 100
