"""Pictures: the right pixels are bright, files are whole."""

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

mpl.use("Agg")
from refdiff_lite import RefDiff, viz
from refdiff_lite.files import data_dir

IMAGE = np.full((20, 30, 3), 200, np.uint8)
MASK = np.zeros((20, 30), bool)
MASK[5:10, 5:15] = True


def test_overlay_keeps_the_inside_and_dims_the_outside():
    out = viz.overlay(IMAGE, MASK)
    assert (out[MASK] == 200).all()
    assert (out[~MASK] < 130).all()


def test_save_overlay_has_a_rim(tmp_path):
    viz.save_overlay(IMAGE, MASK, tmp_path / "o.png")
    out = np.asarray(Image.open(tmp_path / "o.png"))
    assert out.shape == IMAGE.shape
    assert (out == (0xE6, 0x55, 0x0D)).all(-1).any()


@pytest.mark.parametrize("mask", [MASK, ~np.zeros_like(MASK), np.zeros_like(MASK)])
def test_small_functions_draw_on_the_ax_they_are_given(mask):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3)
    assert viz.show_image(IMAGE, axes[0]) is axes[0]
    assert viz.show_map(mask.astype(np.float32), IMAGE, axes[1]) is axes[1]
    assert viz.show_mask(mask, IMAGE, axes[2], "title") is axes[2]
    assert [len(ax.images) for ax in axes] == [1, 2, 1]
    plt.close(figure)


def test_panel_marks_the_head_and_shows_five_proposals(tmp_path):
    image = data_dir() / "toyref" / "test" / "images" / "030000.jpg"
    result = RefDiff.from_preset("toy").set_image(image).segment("the car on the left", proposals="weak")
    figure = result.plot(tmp_path / "panel.png")
    assert len(figure.axes) == 4 + 5
    tokens = {t.get_text(): t.get_bbox_patch().get_facecolor()[:3] for t in figure.axes[0].texts if t.get_bbox_patch()}
    marked = [word for word, colour in tokens.items() if colour == mpl.colors.to_rgb(viz.CHOSEN)]
    assert marked == ["car"]
    assert Image.open(tmp_path / "panel.png").size == (1200, 640)


def test_panel_shows_the_right_proposal_however_low_it_ranks():
    image = data_dir() / "toyref" / "test" / "images" / "030000.jpg"
    result = RefDiff.from_preset("toy").set_image(image).segment("the car on the left", proposals="weak")
    order = result.scores["S"].argsort(descending=True).tolist()
    assert len(order) > 5
    truth = result.proposals[order[-1]]
    titles = [ax.get_title() for ax in result.plot(truth=truth).axes]
    assert titles[-1].startswith(f"closest to the truth, rank {len(order)} of {len(order)}\n")
    assert sum("closest to the truth" in t for t in titles) == 1
    assert not any("closest to the truth" in ax.get_title() for ax in result.plot().axes)
    with pytest.raises(ValueError, match="working size"):
        result.plot(truth=truth[1:])
