import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import traitlets
from IPython.core.formatters import DisplayFormatter
from PIL import Image
from test_expression import Slow

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.attention import record_attention, resize
from refdiff_lite.expression import parse
from refdiff_lite.images import pad_to_square, square_corner
from refdiff_lite.widgets import AttentionExplorer
from refdiff_lite.widgets.attention import LIVE_BYTES
from refdiff_lite.widgets.base import DATA_BYTES, EXPORT_BYTES, bits, pack, palette, picture, quantise, unpack
from refdiff_lite.widgets.recording import OTHER, PADDING, collect
from refdiff_lite.widgets.sheet import GAP, over
from refdiff_lite.widgets.slices import (
    MEAN,
    OWN,
    READ,
    VALUES,
    Slice,
    frames,
    grids,
    left_out,
    overview,
    self_map,
    slices,
    word_maps,
)


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
    found = word_maps(attention, Slice("blocks.0", MEAN, 1, "probabilities"))
    np.testing.assert_allclose(found[:4], expected, atol=1e-6)
    np.testing.assert_array_equal(
        word_maps(attention, Slice("blocks.0", 1, 1, "logits"))[:4], logits[1][..., :4].permute(2, 0, 1)
    )
    assert attention.names == (*attention.words, PADDING)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)  # with the padding nothing of the attention is left out


def test_a_words_first_pieces_and_commas_are_counted_too(recorded):
    attention = replace(recorded(), columns=(0, 2, 3, 5))
    assert attention.names == ("start", "a", "cat", "end", OTHER, PADDING)
    for where in (Slice("blocks.0", MEAN, 0), Slice("mean 2×2", 1, 1), Slice(READ, 0, 1)):
        np.testing.assert_allclose(word_maps(attention, where).sum(0), 1, atol=1e-6)


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
    assert left_out(attention, arrays) == ""
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
    assert left_out(attention, arrays).startswith("This page keeps ")
    packed = [s.head for s, _ in slices(attention) if s.key in arrays]
    assert (packed[0] == MEAN) if packed else budget < 8000
    assert (MEAN in packed and max(packed) > MEAN) == (budget == 8000)


@pytest.fixture(scope="module")
def sd_sized(recorded):
    """As Stable Diffusion 1.5 at 512 px: fifteen layers on three grids and one in the middle, eight heads, three steps."""
    grids = [(64, 64)] * 5 + [(32, 32)] * 5 + [(16, 16)] * 5 + [(8, 8)]
    words = tuple(f"word{i}" for i in range(41))
    return recorded(grids, heads=8, steps=3, words=("start", *words, "end"), side=512, self_side=32)


@pytest.mark.slow
def test_a_page_of_stable_diffusions_size_keeps_every_step_and_says_what_it_leaves_out(sd_sized, tmp_path):
    explorer = AttentionExplorer(sd_sized, layer="blocks.7", head=3, step=2)
    assert explorer.save_html(tmp_path / "sd.html").stat().st_size <= EXPORT_BYTES
    assert len(explorer._block) <= LIVE_BYTES + len(explorer._image) + 50_000
    meta, block = explorer.kept()
    assert len(block) <= DATA_BYTES
    assert explorer.slice.key in meta["index"]
    for step in range(3):  # the noise slider never has to jump
        assert Slice(READ, MEAN, step).key in meta["index"]
        assert f"self/mean/{step}" in meta["index"]
    assert "single heads of" in meta["left_out"]


@pytest.mark.slow
def test_a_live_explorer_answers_for_every_layer_head_and_step(sd_sized):
    explorer = AttentionExplorer(sd_sized)
    sent = []
    explorer.send = lambda content, buffers=None: sent.append((content, buffers))
    for where in (Slice("blocks.0", 7, 2), Slice("mean 64×64", MEAN, 1, "logits"), Slice("blocks.15", 0, 2)):
        assert where.key not in explorer.arrays()
        explorer._asked_by_a_view(explorer, {"ask": where.key}, [])
        content, (block,) = sent.pop()
        assert content["answer"] == where.key
        arrays = unpack(content["index"], block)
        maps, (low, high) = (
            word_maps(sd_sized, where),
            np.moveaxis(arrays[f"range/{where.key}"], -1, 0)[..., None, None],
        )
        np.testing.assert_allclose(low + arrays[where.key] / 255 * (high - low), maps, atol=0.003 * (high - low).max())
    explorer._asked_by_a_view(explorer, {"ask": "blocks.0/8/0/logits"}, [])
    assert "heads 0 to 7" in sent.pop()[0]["error"]


def test_maps_are_those_of_the_slice_shown(recorded):
    explorer = AttentionExplorer(recorded(), layer="blocks.1", head=1, step=1, values="logits")
    np.testing.assert_array_equal(explorer.maps(), word_maps(explorer.attention, explorer.slice))
    explorer.layer = "blocks.0"
    assert explorer.maps().shape == (5, 4, 4)
    explorer.layer = "nowhere"
    with pytest.raises(ValueError, match="was not recorded"):
        explorer.maps()


def test_a_region_listens_as_its_pixels_do(recorded):
    explorer = AttentionExplorer(recorded(), layer="blocks.0", box=[0.5, 0, 1, 0.5])
    expected = explorer.maps()[:, 2:, :2].mean((1, 2))
    assert explorer.listening() == pytest.approx(dict(zip(explorer.attention.names, expected, strict=True)))
    explorer.box = []
    with pytest.raises(ValueError, match="draw a region"):
        explorer.listening()


def test_the_table_holds_the_maps_shown(recorded):
    explorer = AttentionExplorer(recorded(), layer="blocks.0", pinned=[1, 4])
    rows = [line.split(",") for line in explorer.to_csv().splitlines()[1:]]
    assert [r[0] for r in rows] == ["a"] * 16 + ["padding"] * 16
    np.testing.assert_allclose([float(r[3]) for r in rows], explorer.maps()[[1, 4]].ravel(), rtol=1e-5)


def test_the_overview_is_of_every_layer_head_and_step(recorded):
    attention = recorded()
    inside = np.zeros((32, 32), bool)
    inside[:16] = True
    found = overview(attention, 2, 1, inside)
    assert found["heads"].shape == (2, 3, 16, 16)
    assert found["steps"].shape == (2, 2, 16, 16)
    maps = word_maps(attention, Slice("blocks.0", 1, 1))[2]
    p = maps / maps.sum()
    assert found["heads/entropy"][0, 2] == pytest.approx(-(p * np.log(p)).sum() / np.log(16), rel=1e-5)
    assert found["heads/inside"][0, 2] == pytest.approx(p[:2].sum(), rel=1e-5)
    mean = word_maps(attention, Slice("blocks.1", MEAN, 0))[2]
    assert found["steps/inside"][1, 0] == pytest.approx(mean[:1].sum() / mean.sum(), rel=1e-5)


def test_choices_are_checked(recorded):
    explorer = AttentionExplorer(recorded(), pinned=[1, 2, 3])
    assert explorer.pinned == [1, 2, 3]
    with pytest.raises(traitlets.TraitError, match="numbers 0 to 4"):
        explorer.pinned = [5]
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


def test_repr_and_still(recorded, monkeypatch):
    """The widget, and behind it the still as an output of its own, which a saved notebook shows."""
    explorer, shown = AttentionExplorer(recorded(), pinned=[2]), []
    assert repr(explorer) == "AttentionExplorer('a cat', mean of layers read, pinned: cat)"
    monkeypatch.setattr("refdiff_lite.widgets.base.display", lambda data, metadata, raw: shown.append((data, metadata)))
    DisplayFormatter().format(explorer)
    (widget, _), (still, about) = shown
    assert "application/vnd.jupyter.widget-view+json" in widget
    assert "image/png" not in widget
    assert still["text/plain"] == repr(explorer)
    assert still["image/png"].startswith("iVBOR")
    assert repr(explorer) in about["image/png"]["alt"]


def test_the_still_shows_what_is_shown(recorded, tmp_path):
    """As large as one picture for each map, the pinned ones alone; where a map is least the image shows."""
    image = np.full((32, 32, 3), 255, np.uint8)
    explorer = AttentionExplorer(
        replace(recorded(), image=image), pinned=[1, 2], compare=True, pixel=[0.5, 0.5], opacity=1
    )
    with Image.open(explorer.save_png(tmp_path / "still.png")) as png:
        assert (png.format, png.width) == ("PNG", 5 * (32 + GAP) + GAP)
    drawn = over(image, np.arange(4.0).reshape(2, 2), smooth=False, opacity=1)
    np.testing.assert_array_equal(drawn[-1, -1], palette()[255])
    np.testing.assert_allclose(drawn[0, 0], 0.75 * 255 + 0.25 * palette()[0], atol=1)
    assert len(explorer.figure().axes) == 5
    many = replace(recorded(), words=("start", "日本語 αβγ \n" * 30, "cat", "end"))
    assert AttentionExplorer(many).still().startswith(b"\x89PNG")


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


CONFIGS = {
    "toy": RefDiffConfig.toy(),
    "paper": RefDiffConfig.paper(),
    "official": RefDiffConfig.official(),
    "pad": RefDiffConfig.toy(pad=True),
    "logits": RefDiffConfig.toy(scores="logits"),
    "ddim": RefDiffConfig.toy(noise="ddim"),
    "propagate": RefDiffConfig.toy(propagate=2),
    "draws": RefDiffConfig.toy(draws=2, denoise_steps=(1, 0), prompt_suffix=", "),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_methods_own_map_is_the_methods_own(scene, name):
    image = np.ascontiguousarray(scene.image[:, : scene.size[1] * 2 // 3])  # no square
    changed = RefDiff(scene.model.networks, CONFIGS[name]).set_image(image)
    sentence = "the red car on the left"
    attention = collect(changed, sentence, changed.config.denoise_steps[:1])
    c = changed.word_map(parse(sentence)).numpy()
    found = word_maps(attention, Slice(OWN))[attention.head]
    if changed.config.pad:  # what is shown is the square that the UNet saw
        (top, left), (height, width) = square_corner(c.shape), c.shape
        assert found.shape == attention.image.shape[:2] == (max(c.shape),) * 2
        np.testing.assert_array_equal(attention.image, pad_to_square(changed.image))
        found = found[top : top + height, left : left + width]
    np.testing.assert_allclose(found, c, atol=1 / 255)
    # What the page draws of it differs by its 256 levels alone.
    drawn = AttentionExplorer(attention).answer(OWN)
    low, high = drawn[f"range/{OWN}"][attention.head]
    exact = resize(torch.from_numpy(word_maps(attention, Slice(OWN))), grids(attention)[OWN])[attention.head]
    np.testing.assert_allclose(low + drawn[OWN][attention.head] / 255 * (high - low), exact, atol=1 / 255)


def test_raw_maps_are_of_the_noise_that_the_config_makes(scene):
    changed = RefDiff(scene.model.networks, RefDiffConfig.toy(noise="ddim")).set_image(scene.image)
    attention = collect(changed, "the red car", changed.config.denoise_steps)
    maps = changed.unet_pass(["the red car"])[0]["cross"].maps
    for layer in attention.reads:
        found = word_maps(attention, Slice(layer))[attention.head]
        np.testing.assert_allclose(found, maps[layer][0, ..., attention.columns[attention.head]], atol=1e-5)


def test_a_sentence_is_cut_where_the_encoder_stops_reading(scene):
    long = "the red car " + "that is near the big tree " * 6 + "by the house"
    attention = collect(scene, long, [1])
    assert attention.words[attention.head] == "car"
    assert attention.unread.endswith("house")
    assert len(attention.words) < len(long.split())
    np.testing.assert_allclose(word_maps(attention, Slice(READ)).sum(0), 1, atol=1e-5)
    assert attention.unread in AttentionExplorer(attention).to_html()
    with pytest.raises(ValueError, match="'house' lies behind"):
        collect(scene, long, [1], head="house")
    explorer = AttentionExplorer.from_scene(scene, "the red car by the tree", [1], head_word="tree")
    assert explorer.attention.words[explorer.attention.head] == "tree"


def test_a_long_word_shows_its_pieces(scene):
    attention = collect(scene, "the xylophone", [1])
    pieces = attention.pieces[2]
    assert len(pieces) > 1
    assert "".join(pieces) == "xylophone"
    assert attention.names[-2:] == (OTHER, PADDING)


def test_a_pixel_looks_as_its_block_and_head_do(scene):
    attention = collect(scene, "the red car", [1])
    unet, t = scene.model.networks.use("unet"), scene.timesteps[1]
    layer = attention.reads[0]
    with torch.no_grad(), record_attention(unet, [layer], "self", heads="each") as found:
        unet(scene.noised[0], t, scene.model.encode_prompt(["the red car"]))
    (maps,) = found.maps.values()
    for head, expected in ((1, maps[0, 1]), (MEAN, maps[0].mean(0))):
        looks = self_map(attention, Slice(layer, head, 0))
        np.testing.assert_allclose(looks.reshape(expected.shape), expected, atol=1e-5)


def test_networks_of_ones_own_are_asked_through_their_object_alone(sd15_nets, monkeypatch):
    """PNDM's doubled timestep and networks that wait on another device are the object's business."""
    scene = RefDiff(sd15_nets).set_image(np.zeros((64, 64, 3), np.uint8))
    assert len(set(scene.timesteps)) == scene.config.num_steps
    monkeypatch.setattr(type(sd15_nets), "tokenizer", property(lambda nets: slow))
    slow = Slow(sd15_nets.sd.tokenizer)
    attention = collect(scene, "the red car", [2])
    assert attention.words == ("start", "the", "red", "car", "end")
    assert attention.timesteps == (scene.timesteps[2],)


def test_asking_again_is_as_a_new_explorer(scene, recorded):
    explorer = AttentionExplorer.from_scene(scene, "the red car", [1, 3], "up", pinned=[2])
    explorer.ask("the small house")
    fresh = collect(scene, "the small house", [1, 3], "up")
    assert (explorer.attention.words, explorer.pinned) == (fresh.words, [])
    np.testing.assert_array_equal(explorer.maps(), word_maps(fresh, explorer.slice))
    with pytest.raises(ValueError, match="no networks to ask"):
        AttentionExplorer(recorded()).ask("the red car")
