"""Numbers of others, and when ours may stand beside them."""

import pytest

from refdiff_lite.evaluation.published import PUBLISHED
from refdiff_lite.evaluation.summary import comparable

ABOUT = {
    "data": "refcoco", "split": "val", "split_by": "unc", "refs": 3811, "published_refs": 3811, "preset": "sd15",
    "proposals": "sam", "sam": "sam-huge", "complete": True, "images": 1500, "images_total": 1500,
}  # fmt: skip


@pytest.mark.parametrize("about", [{"data": "toyref"}, {"data": "refcocog", "split_by": "google"}])
def test_nothing_published(about):
    rows, notes = comparable(ABOUT | about)
    assert rows == []
    assert "nothing was published" in notes[0]


@pytest.mark.parametrize(
    ("method", "used", "never"),
    [
        ("Ref-Diff (2023)", "Stable Diffusion 1.5, CLIP ViT-B/16, SAM", "FLUX"),
        ("Ref-Diff DS", "CLIP ViT-B/16, SAM", "Diffusion"),
        ("Ref-Diff G,", "Stable Diffusion", "CLIP"),
        ("Global-Local", "ViT-B/32, FreeSOLO", "Diffusion"),
        ("CaR", "CLIP", "Diffusion"),
        ("TAS", "captioner", "Diffusion"),
        ("HybridGL", "GEM", "Diffusion"),
        ("RefAM", "FLUX", "ViT"),
    ],
)
def test_each_published_row_says_what_it_used(method, used, never):
    found = [p for p, _ in comparable(ABOUT)[0] if p.method.startswith(method)]
    assert found
    assert all(used in p.networks and never not in p.networks for p in found)
    assert not any("Stable Diffusion" in note or "ViT" in note for note in comparable(ABOUT)[1])


def test_hybridgl_has_both_metrics_on_every_split():
    found = {p.metric: p.values for p in PUBLISHED if p.method.startswith("HybridGL")}
    assert list(found["mIoU"].values()) == [49.48, 53.37, 45.19, 43.40, 49.13, 37.17, 51.25, 51.59]
    assert found["mIoU"].keys() == found["oIoU"].keys()


def test_published_numbers_are_percent_of_known_splits():
    for p in PUBLISHED:
        assert p.metric in ("oIoU", "mIoU")
        assert all(10 < v < 60 for v in p.values.values())
