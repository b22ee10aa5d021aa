"""What the playground keeps and lets go, and what it shows of CLIP's two views."""

import io

import numpy as np
import pytest
from PIL import Image

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.config import SUCCESSORS
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.ranking import visual_features
from refdiff_lite.widgets import SegmentationPlayground
from refdiff_lite.widgets.answers import clip_sees
from refdiff_lite.widgets.playground import REMEMBERED


@pytest.fixture
def playground(scene):
    return SegmentationPlayground(scene, "the red car", "the house on the left")


@pytest.mark.parametrize(
    "change", [{"current": 1}, {"proposals": "weak"}, {"variant": "g"}], ids=["sentence", "generator", "variant"]
)
def test_what_was_picked_goes_with_what_it_was_picked_from(playground, change):
    playground.picked = 1
    playground.alpha = 0.7  # of the same proposals
    assert playground.picked == 1
    for name, value in change.items():
        setattr(playground, name, value)
    assert playground.picked == -1
    playground.choose(picked=1, current=0, proposals="oracle", variant="full")  # in any order
    assert playground.picked == 1


def test_fifty_sentences_are_not_all_kept(scene, playground):
    for i in range(50):
        playground.ask(f"the car {'of old ' * (i % 5)}number {i}")
    assert len(playground.answers) == len(playground._meta["entries"]) == REMEMBERED
    expected = scene.segment("the red car", "full", "felzenszwalb")
    playground.ask("the red car")
    np.testing.assert_array_equal(playground.mask, expected.mask)


@pytest.mark.parametrize("config", [RefDiffConfig.toy(), RefDiffConfig.paper(), RefDiffConfig.official(min_area=0)])
def test_clip_is_shown_what_it_sees(scene, config, monkeypatch):
    """The crop is the very tensor that is encoded; the bright patches are those that the class token attends to."""
    from refdiff_lite.networks import clip

    changed = RefDiff(scene.model.networks, config).set_image(scene.image)
    proposals = changed.proposals("felzenszwalb")
    seen = {}
    encode, patches = clip.encode_images, clip.patches_of
    monkeypatch.setattr(clip, "encode_images", lambda m, x, *a: (seen.setdefault("crop", x), encode(m, x, *a))[1])
    monkeypatch.setattr(clip, "patches_of", lambda m, g, r: seen.setdefault("grid", g) and patches(m, g, r))
    for branch in ("crop", "masked"):
        visual_features(scene.model.networks, proposals, branch, ("left",), config)
    monkeypatch.undo()
    crop, masked = clip_sees(changed, proposals.masks[0].numpy(), ("left",))
    np.testing.assert_allclose(crop / 255, seen["crop"][0].permute(1, 2, 0), atol=0.5 / 255 + 1e-6)
    rows, columns = seen["grid"]
    inside = patches(proposals.masks[:1], seen["grid"], config.masked_patches).view(rows, columns).numpy()
    plain, _ = clip_sees(changed, np.ones(changed.size, bool), ("left",)), None
    bright = plain[1].astype(float)
    ratio = (masked.sum(-1) + 1) / (bright.sum(-1) + 1)
    size = masked.shape[0] // rows, masked.shape[1] // columns
    cells = ratio[: rows * size[0], : columns * size[1]].reshape(rows, size[0], columns, size[1]).mean((1, 3))
    lit = (
        bright[: rows * size[0], : columns * size[1]].sum(-1).reshape(rows, size[0], columns, size[1]).mean((1, 3)) > 60
    )
    assert (cells[inside & lit] > 0.7).all()
    assert (cells[~inside & lit] < 0.5).all()


def test_a_view_may_ask_for_what_clip_sees(playground):
    name = f"clip/0/felzenszwalb/{playground.best}/1"
    found = playground.answer(name)
    assert set(found) == {f"{name}/crop", f"{name}/masked"}
    for data in found.values():
        assert Image.open(io.BytesIO(data.tobytes())).format == "JPEG"
    sent = []
    playground.send = lambda content, buffers=None: sent.append(content)
    for wrong in ("clip/9/felzenszwalb/0/1", "clip/0/felzenszwalb/99/1", "clip/0/nothing/0/1", "clip", "map/0"):
        playground._asked_by_a_view(playground, {"ask": wrong}, [])
        assert sent.pop()["error"]


def test_another_picture_is_asked_the_same(playground):
    other = load_toyref("test")[1]
    playground.picked = 1
    playground.set_image(other.path)
    result = playground.scene.model.set_image(other.path).segment("the red car", "full", "felzenszwalb")
    np.testing.assert_array_equal(playground.mask, result.mask)
    assert playground.kinds == ("felzenszwalb", "weak")
    assert playground.picked == -1


def test_a_successor_answers_as_the_method_does_and_no_knob_moves_it():
    sample = load_toyref("val")[0]
    scene = RefDiff.from_preset("toy").set_image(sample.image(), oracle=sample.masks)
    playground = SegmentationPlayground(scene, "the chair on the left", proposals="oracle")
    for variant in SUCCESSORS:
        playground.variant = variant
        result = scene.segment("the chair on the left", variant, "oracle")
        assert playground.best == result.best
        np.testing.assert_allclose(playground.scores()["S"], result.scores["S"].numpy(), atol=1e-6)
        name = f"variant/0/oracle/{variant}"
        found = playground.answer(name)
        np.testing.assert_allclose(found[f"{name}/rows"][2], result.scores["S"].numpy(), atol=1e-6)
        playground.alpha = 0.9
        assert playground.best == result.best
    meta, _ = playground.kept()
    assert f"variant/0/oracle/{SUCCESSORS[-1]}/rows" in meta["index"]
