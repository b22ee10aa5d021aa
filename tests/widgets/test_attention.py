import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import traitlets
from IPython.core.formatters import DisplayFormatter

from refdiff_lite.attention import resize
from refdiff_lite.widgets import AttentionExplorer
from refdiff_lite.widgets.attention import MEAN, READ, VALUES, Slice, frames, slices, word_maps
from refdiff_lite.widgets.base import DATA_BYTES, EXPORT_BYTES, bits, pack, palette, picture, quantise, unpack


def test_pack_and_unpack_agree():
    arrays = {"a": np.arange(5, dtype=np.uint8), "b": np.ones((2, 3), np.float32), "c": np.zeros((0, 4), np.uint8)}
    index, block = pack(arrays)
    assert all(offset % 4 == 0 for _, _, offset in index.values())
    back = unpack(json.loads(json.dumps(index)), block)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    with pytest.raises(TypeError, match="int64"):
        pack({"x": np.arange(3)})


def test_quantised_maps_are_exact_to_a_step():
    maps = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    maps[1] = 0.5  # a flat map must not divide by zero
    levels, ranges = quantise(maps)
    back = ranges[:, :1, None] + levels / 255 * (ranges[:, 1:, None] - ranges[:, :1, None])
    assert np.abs(back - maps).max() <= (maps.max() - maps.min()) / 255
    assert (levels[0].min(), levels[0].max()) == (0, 255)
    assert not levels[1].any()


def test_bits_start_with_the_lowest():
    masks = np.zeros((1, 3, 4), bool)
    masks[0, 0, 1] = masks[0, 2, 0] = True  # pixels 1 and 8
    assert bits(masks).tolist() == [[2, 1]]


def test_palette_grows_lighter():
    light = palette().astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > -1).all()
    assert light[-1] > light[0] + 150


def test_picture_keeps_its_shape():
    assert picture(np.zeros((600, 1200, 3), np.uint8))[:2].tobytes() == b"\xff\xd8"


def test_probabilities_are_a_softmax_over_all_tokens_and_mean_over_heads(recorded):
    attention = recorded()
    logits = torch.from_numpy(attention.cross[1]["blocks.0"])
    expected = logits.softmax(-1).mean(0)[..., :4].permute(2, 0, 1)
    np.testing.assert_allclose(word_maps(attention, Slice("blocks.0", MEAN, 1, "probabilities")), expected, atol=1e-6)
    np.testing.assert_array_equal(
        word_maps(attention, Slice("blocks.0", 1, 1, "logits")), logits[1][..., :4].permute(2, 0, 1)
    )


def test_mean_of_a_grid_takes_the_layers_of_that_grid_alone(recorded):
    attention = recorded(grids=((4, 4), (4, 4), (2, 2)))
    each = [word_maps(attention, Slice(f"blocks.{i}", MEAN, 0, "logits")) for i in (0, 1)]
    mean = word_maps(attention, Slice("mean 4×4", MEAN, 0, "logits"))
    np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=1e-6)
    with pytest.raises(ValueError, match="was not recorded"):
        word_maps(attention, Slice("blocks.9", MEAN, 0, "logits"))


@pytest.mark.parametrize("values", VALUES)
def test_the_layers_that_the_method_reads_are_one_mean_on_the_finest_grid(recorded, values):
    attention = replace(recorded(grids=((2, 2), (4, 4), (2, 2), (8, 8))), reads=("blocks.0", "blocks.1", "blocks.2"))
    each = [word_maps(attention, Slice(f"blocks.{i}", MEAN, 1, values)) for i in range(3)]
    by_hand = torch.stack([resize(torch.from_numpy(m), (4, 4)) for m in each]).mean(0)
    np.testing.assert_allclose(word_maps(attention, Slice(READ, MEAN, 1, values)), by_hand, atol=1e-6)
    explorer = AttentionExplorer(attention)
    assert explorer.layer == READ
    assert explorer._meta["layers"][READ] == [4, 4]
    assert AttentionExplorer(replace(attention, reads=())).layer == "mean 2×2"


def test_every_slice_of_a_small_recording_is_packed_and_right(recorded):
    attention = recorded()
    arrays = frames(attention, 10**6)
    wanted = [s for s, _ in slices(attention)]
    assert len(wanted) == len(set(wanted)) == 2 * 5 * 3 * len(VALUES)  # steps, layers with means, heads with mean
    for where in wanted:
        low, high = np.moveaxis(arrays[f"range/{where.key}"], -1, 0)[..., None, None]
        np.testing.assert_allclose(
            low + arrays[where.key] / 255 * (high - low), word_maps(attention, where), atol=0.02 * (high - low).max()
        )


@pytest.mark.parametrize("budget", [0, 300, 8000])
def test_frames_keep_to_the_budget_and_to_the_order(recorded, budget):
    attention = recorded()
    arrays = frames(attention, budget)
    assert sum(a.nbytes for a in arrays.values()) <= budget
    packed = [s.head for s, _ in slices(attention) if s.key in arrays]
    assert (packed[0] == MEAN) if packed else budget < 8000
    assert (MEAN in packed and max(packed) > MEAN) == (budget == 8000)


@pytest.mark.slow
def test_stable_diffusions_sizes_fit_into_a_page(recorded, tmp_path):
    explorer = AttentionExplorer(
        # As Stable Diffusion 1.5 at 512 px: fifteen layers on three grids and one in the middle, eight heads.
        recorded(
            [(64, 64)] * 5 + [(32, 32)] * 5 + [(16, 16)] * 5 + [(8, 8)],
            heads=8,
            words=("start", *"the small brown dog on the left of the red car".split(), "end"),
            side=512,
            self_side=32,
        )
    )
    arrays = explorer.arrays()
    assert explorer.save_html(tmp_path / "sd.html").stat().st_size <= EXPORT_BYTES
    assert len(explorer._block) <= DATA_BYTES
    for grid in (64, 32, 16, 8):  # each resolution, in both kinds of value, as mean over the heads
        for values in VALUES:
            assert Slice(f"mean {grid}×{grid}", MEAN, 0, values).key in arrays
    assert arrays["self/0"].shape == (32, 32, 32, 32)


def test_maps_are_those_of_the_slice_shown(recorded):
    explorer = AttentionExplorer(recorded(), layer="blocks.1", head=1, step=1, values="logits")
    np.testing.assert_allclose(explorer.maps(), word_maps(explorer.attention, explorer.slice), atol=0.03)
    explorer.layer = "blocks.0"
    assert explorer.maps().shape == (4, 4, 4)
    explorer.layer = "nowhere"
    with pytest.raises(ValueError, match="not packed"):
        explorer.maps()


def test_choices_are_checked(recorded):
    explorer = AttentionExplorer(recorded(), pinned=[1, 2, 3])
    assert explorer.pinned == [2, 3]  # the last two
    with pytest.raises(traitlets.TraitError, match="numbers 0 to 3"):
        explorer.pinned = [4]
    with pytest.raises(traitlets.TraitError):
        explorer.opacity = 2
    with pytest.raises(TypeError, match="has no colour"):
        AttentionExplorer(recorded(), colour="red")


def test_what_a_person_typed_stays_text(recorded):
    words = ("start", "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "end")
    page = AttentionExplorer(recorded(words=words)).to_html()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("</script>") == 3
    for outside in ("http://", "https://", "import "):
        assert outside not in page.replace("http://www.w3.org/2000/svg", "")


def test_repr_and_still(recorded):
    explorer = AttentionExplorer(recorded(), pinned=[2])
    assert repr(explorer) == "AttentionExplorer('a cat', mean of layers read, pinned: cat)"
    data, _ = DisplayFormatter().format(explorer)
    assert data["text/plain"] == repr(explorer)
    assert data["image/png"].startswith("iVBOR")
    assert "application/vnd.jupyter.widget-view+json" in data


def test_fifty_explorers_leave_nothing_behind(recorded, assert_nothing_stays):
    assert_nothing_stays(lambda: AttentionExplorer(recorded()))


def test_from_scene_records_what_the_method_reads(scene):
    explorer = AttentionExplorer.from_scene(scene, "the red car", steps=[1, 3])
    attention = explorer.attention
    assert attention.words == ("start", "the", "red", "car", "end")
    assert attention.words[attention.head] == "car"
    assert attention.timesteps == tuple(scene.timesteps[s] for s in (1, 3))
    with pytest.raises(ValueError, match="at least one"):
        AttentionExplorer.from_scene(scene, "the red car", steps=[99])
    # Recording beside the running network gives what the pipeline's own stage reads.
    maps = scene.unet_pass(["the red car"])[0]["cross"].maps
    name = next(iter(maps))
    own = AttentionExplorer.from_scene(scene, "the red car", steps=scene.config.denoise_steps)
    assert own.attention.reads == tuple(maps)
    assert own.layer == READ
    where = Slice(name, MEAN, 0, "probabilities")
    np.testing.assert_allclose(
        word_maps(own.attention, where)[3], maps[name][0, ..., own.attention.columns[3]].numpy(), atol=1e-5
    )
