"""The playground, the inversion explorer and the gallery, without a browser."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import traitlets

from refdiff_lite.config import PAPER_VARIANTS
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.run import evaluate
from refdiff_lite.expression import parse
from refdiff_lite.masks import to_rle
from refdiff_lite.widgets import Gallery, InversionExplorer, SegmentationPlayground
from refdiff_lite.widgets import gallery as gallery_module
from refdiff_lite.widgets import inversion as inversion_module
from refdiff_lite.widgets.answers import Parts, score
from refdiff_lite.widgets.base import unpack


@pytest.fixture(scope="module")
def sample():
    return load_toyref("test")[0]


@pytest.fixture
def playground(scene, sample):
    record = next(r for r in sample.records if r.style == "toyref")
    return SegmentationPlayground(scene, record.text, truth={record.text: sample.masks[record.target]})


# ---- SegmentationPlayground


@pytest.mark.parametrize("variant", PAPER_VARIANTS)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("bias", [False, True])
def test_scores_are_the_papers_sums(variant, alpha, beta, bias):
    parts = Parts(
        masks=np.ones((2, 4, 4), bool),
        s_g=np.array([0.5, -0.1]),
        otsu=np.array([0.1, 0.2]),
        crop=np.array([[0.1, 0.2], [0.3, 0.4]]),
        masked=np.array([[0.5, 0.6], [0.7, 0.8]]),
        iou=None,
    )
    s_d = (
        np.array([0.3, 0.4] if bias else [0.1, 0.2]) * (1 - beta) + np.array([0.7, 0.8] if bias else [0.5, 0.6]) * beta
    )
    expected = {"g": parts.s_g, "gs": parts.s_g, "ds": s_d, "full": alpha * parts.s_g + (1 - alpha) * s_d}[variant]
    found = score(parts, variant, alpha, beta, bias)
    np.testing.assert_allclose(found["S"], expected)
    np.testing.assert_allclose(found["S_D"], s_d)
    if variant == "g":
        np.testing.assert_array_equal(score(parts, "g", alpha, beta, bias, otsu=True)["S"], parts.otsu)


@pytest.mark.parametrize("variant", PAPER_VARIANTS)
def test_the_winner_is_the_pipelines_own(scene, playground, variant):
    text = playground.answers[0].expression.text
    playground.choose(variant=variant, proposals="felzenszwalb")
    result = scene.segment(text, variant, None if variant == "g" else "felzenszwalb")
    assert playground.best == result.best
    np.testing.assert_array_equal(playground.mask, result.mask)
    np.testing.assert_allclose(playground.scores()["S_G"], result.scores["S_G"].numpy(), atol=1e-6)


def test_bits_and_levels_bring_the_masks_over(playground):
    arrays = unpack(playground._meta["index"], playground._block)
    parts = playground.answers[0].parts
    size = playground.size
    for kind in ("felzenszwalb", "oracle"):
        n = len(parts[kind].masks)
        masks = np.unpackbits(arrays[f"masks/{kind}"], axis=1, bitorder="little")[:, : size[0] * size[1]]
        np.testing.assert_array_equal(masks.reshape(n, *size).astype(bool), parts[kind].masks)
    for n, mask in enumerate(parts["weak"].masks):
        np.testing.assert_array_equal(arrays["0/levels"] > n, mask)


def test_a_threshold_names_its_weak_proposal(playground):
    playground.choose(variant="g", threshold=10)
    assert playground.best == 9
    np.testing.assert_array_equal(playground.mask, playground.answers[0].word_map >= np.float32(0.5))
    playground.picked = 2
    np.testing.assert_array_equal(playground.mask, playground.answers[0].parts["weak"].masks[2])


def test_only_a_new_sentence_calls_the_networks(scene, playground, monkeypatch):
    text = playground.answers[0].expression.text
    monkeypatch.setattr(scene.model.networks, "use", lambda part: pytest.fail(f"the {part} ran"))
    for choices in (
        {"alpha": 0.9},
        {"variant": "ds"},
        {"proposals": "weak"},
        {"bias": False},
        {"variant": "g", "threshold": 3},
    ):
        playground.choose(**choices)
        assert playground.mask.any()
    playground.ask(text)
    assert playground.current == 0


def test_a_view_asks_corrects_the_head_and_the_cues(playground):
    playground._request = {"sentence": "the  small car  on the left", "n": 1}
    assert playground.answers[playground.current].expression == parse("the small car on the left")
    playground._request = {"sentence": "the small car on the left", "head": "left", "cues": ["top"], "n": 2}
    expression = playground.answers[playground.current].expression
    assert (expression.head, expression.cues) == ("left", ("top",))
    assert not playground._busy
    playground._request = {"sentence": "...", "n": 3}
    assert "no word" in playground._error
    playground._request = {"sentence": "car", "cues": ["sideways"], "n": 4}
    assert "unknown cues" in playground._error
    assert len(playground.answers) == 3


def test_iou_is_there_where_the_truth_is(playground, sample):
    parts = playground.answers[0].parts
    assert parts["oracle"].iou.max() == 1
    assert playground.ask("car").parts["oracle"].iou is None


def test_playground_refuses_no_sentence(scene):
    with pytest.raises(ValueError, match="at least one sentence"):
        SegmentationPlayground(scene)


# ---- InversionExplorer


def journeys(steps=3, side=8):
    rng = np.random.default_rng(0)
    count = 2 * steps + 1
    return {
        way: inversion_module.Journey(
            rng.normal(size=(count, 4, 2, 2)).astype(np.float32),
            rng.integers(0, 255, (count, side, side, 3), dtype=np.uint8),
            np.linspace(90, 10, count),
        )
        for way in inversion_module.WAYS
    }


def test_journeys_start_at_the_picture_and_the_repair_comes_back_best(scene):
    found = inversion_module.collect(scene, steps=4, fixed_point=4)
    for journey in found.values():
        assert journey.images.shape == (9, *scene.size, 3)
        assert journey.psnr[0] > 100
        np.testing.assert_array_equal(journey.latents[0], scene.latents[0].numpy())
    assert found["fixed-point"].psnr[-1] > found["ddim"].psnr[-1] > found["random"].psnr[-1]
    with pytest.raises(ValueError, match="2 to 50"):
        inversion_module.collect(scene, steps=1)


def test_inversion_frames_hold_every_step():
    made = journeys()
    meta, arrays = inversion_module.frames(made)
    for way, journey in made.items():
        back = (arrays[f"{way}/latents"] / 255 * 2 - 1) * meta["span"]
        assert np.abs(back - journey.latents).max() <= meta["span"] / 250
        np.testing.assert_allclose(arrays[f"{way}/psnr"], np.minimum(journey.psnr, meta["top"]), rtol=1e-6)


def test_inversion_steps_are_those_of_the_way():
    explorer = InversionExplorer(journeys(), [1, 401, 801], step=3)
    assert explorer.timesteps == [0, 1, 401, 801, 401, 1, 0]
    with pytest.raises(traitlets.TraitError, match="7 steps"):
        explorer.step = 7


# ---- Gallery


def items(n=6):
    rng = np.random.default_rng(0)
    mask = np.zeros((16, 16), bool)
    mask[4:8, 4:8] = True
    causes = gallery_module.CAUSES
    return [
        gallery_module.Item(
            i // 2,
            rng.integers(0, 255, (16, 16, 3), dtype=np.uint8),
            mask,
            mask,
            f"thing {i}",
            "thing",
            "noun" if i % 2 else "toyref",
            (i * 7 % n) / n,
            causes[i % len(causes)],
            *((rng.random((16, 16)), (0.5, 0.25)) if i else ()),
        )
        for i in range(n)
    ]


def test_causes(sample):
    truth = sample.masks
    assert gallery_module.cause(truth[0], sample, 0) == "right"
    assert gallery_module.cause(np.zeros_like(truth[0]), sample, 0) == "nothing found"
    piece = truth[0].copy()
    piece[: np.flatnonzero(truth[0].any(1))[0] + np.ptp(np.flatnonzero(truth[0].any(1))) * 2 // 3] = False
    assert gallery_module.cause(piece, sample, 0) == "loose outline"
    assert sample.categories[0] == sample.categories[1]
    assert gallery_module.cause(truth[1], sample, 0) == "twin"
    other = replace(sample, categories=("car", "cat"))
    assert gallery_module.cause(truth[1], other, 0) == "other kind"


def test_gallery_sorts_and_filters():
    explorer = Gallery(items())
    values = [explorer.items[i].iou for i in explorer.shown()]
    assert values == sorted(values)
    explorer.order = "best"
    assert [explorer.items[i].iou for i in explorer.shown()] == sorted(values, reverse=True)
    explorer.choose(order="run", style="noun")
    assert explorer.shown() == [1, 3, 5]
    explorer.cause = "loose outline"
    assert explorer.shown() == [1]


def test_what_does_not_fit_is_left_out_of_the_middle(monkeypatch):
    many = [replace(item, iou=i / 600, image_id=i) for i, item in enumerate(items(6) * 100)]
    whole = Gallery(many[:40])
    assert len(whole.items) == 40
    monkeypatch.setattr(gallery_module, "DATA_BYTES", 60_000)
    explorer = Gallery(many, "Results")
    meta, _ = explorer.kept()
    kept = [entry["iou"] for entry in meta["entries"].values()]
    assert 10 < len(kept) < 600
    assert kept == sorted(kept)
    half = -(-len(kept) // 2)
    assert kept[:half] == [round(i / 600, 3) for i in range(half)]
    assert kept[half:] == [round(i / 600, 3) for i in range(600 - len(kept) // 2, 600)]
    assert meta["title"] == f"Results: of 600 the worst {half} and the best {len(kept) // 2} fit"
    assert {n for n in explorer.arrays() if n.startswith("image/")} == {f"image/{i}" for i in meta["entries"]}
    assert len(explorer.shown()) == len(explorer._meta["entries"]) == 600  # beside a kernel all are there
    explorer.order = "best"
    assert explorer.shown()[:2] == [599, 598]
    with pytest.raises(ValueError, match="nothing to show"):
        Gallery([])
    monkeypatch.setattr(gallery_module, "DATA_BYTES", 100)
    with pytest.raises(ValueError, match="larger than a page may be"):
        Gallery(many).to_html()


def test_what_is_not_packed_is_answered_by_the_kernel(monkeypatch):
    monkeypatch.setattr(gallery_module, "PACKED", 2)
    explorer = Gallery(items())
    (left,) = [i for i in (4,) if f"{i}/masks" not in explorer.arrays()]
    found = explorer.answer(f"{left}/masks")
    assert found.keys() == {f"{left}/{part}" for part in ("masks", "map", "scores", "image")}
    np.testing.assert_array_equal(
        np.unpackbits(found[f"{left}/masks"], axis=1, bitorder="little")[0].reshape(16, 16), items()[left].mask
    )
    assert explorer.answer(f"{left}/full").keys() == {f"{left}/full", f"{left}/fullmasks"}
    for wrong in ("6/masks", "x/masks", "1/other", "1"):
        with pytest.raises(ValueError, match="nothing named"):
            explorer.answer(wrong)


def test_a_filter_closes_what_it_leaves_out():
    explorer = Gallery(items(), opened=1)
    explorer.style = "noun"
    assert explorer.opened == 1
    explorer.style = "toyref"
    assert explorer.opened == -1


@pytest.fixture(scope="module")
def run(scene, sample, tmp_path_factory):
    """A run of two variants over three sentences of one image, and a sample that holds more."""
    folder = tmp_path_factory.mktemp("run")
    few = replace(sample, records=sample.records[:3])
    evaluate(scene.model, [few], ["gs", "largest"], "oracle", folder, {"data": "toyref", "split": "test"})
    return folder


def test_gallery_of_a_run_shows_what_was_evaluated(run, scene, sample):
    explorer = Gallery.from_run(run, order="run")
    assert explorer._meta["title"] == "Results of gs, toyref test"
    for item, record in zip(explorer.items, sample.records, strict=False):
        result = scene.segment(record.text, "gs", "oracle")
        np.testing.assert_array_equal(item.mask, result.mask)
        np.testing.assert_array_equal(item.truth, sample.masks[record.target])
        np.testing.assert_array_equal(item.image, sample.image())
        assert (item.text, item.style, item.head) == (record.text, record.style, result.expression.head)
        assert (item.cause == "right") == np.array_equal(result.mask, sample.masks[record.target])
    assert [i.word_map for i in explorer.items] == [None] * 3


def test_gallery_of_a_run_with_its_model_tells_the_whole_story(run, scene):
    first = Gallery.from_run(run, model=scene.model, limit=3).items[0]
    result = scene.segment(first.text, "gs", "oracle")
    np.testing.assert_array_equal(first.word_map, result.word_map)
    np.testing.assert_allclose(first.scores, np.sort(result.scores["S"].numpy())[::-1])
    np.testing.assert_array_equal(first.rivals[0], result.proposals[result.best])


def test_gallery_of_a_long_run_shows_both_ends_of_all(run):
    whole = Gallery.from_run(run, variant="largest")
    ious = sorted(i.iou for i in whole.items)
    for limit, kept, told in (
        (1, ious[:1], "the worst 1 and the best 0"),
        (2, [ious[0], ious[-1]], "the worst 1 and the best 1"),
    ):
        short = Gallery.from_run(run, variant="largest", limit=limit)
        assert sorted(i.iou for i in short.items) == kept
        assert short._meta["title"] == f"Results of largest, toyref test: {told} of 3"
        short.order = "best"
        assert short.items[short.shown()[0]].iou == kept[-1]


def test_a_runs_pictures_are_decoded_when_they_are_looked_at(run, sample, monkeypatch):
    monkeypatch.setattr(gallery_module, "PACKED", 1)
    decoded = []
    image = type(sample).image
    monkeypatch.setattr(type(sample), "image", lambda self: decoded.append(self.image_id) or image(self))
    explorer = Gallery.from_run(run, [sample])
    assert len(decoded) == 1
    explorer.answer("2/masks")
    assert len(decoded) == 2


def test_two_runs_are_compared_sentence_by_sentence(run, sample, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    rows = [json.loads(line) for line in (copy / "results.jsonl").read_text().splitlines()]
    mine = [row for row in rows if row["variant"] == "gs"]
    empty = to_rle(np.zeros(sample.size, bool))["counts"]
    flipped = next(k for k, row in enumerate(mine) if row["iou"] >= 0.5)
    mine[flipped] |= {"iou": 0.0, "rle": empty}
    (copy / "results.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    explorer = Gallery.from_run(run, variant="gs", compare=copy, change="gained")
    assert explorer.shown() == [flipped]
    assert not explorer.items[flipped].other.any()
    assert Gallery.from_run(copy, variant="gs", compare=run, change="lost").shown() == [flipped]
    assert Gallery.from_run(run, variant="gs", compare=run, change="lost").shown() == []
    (copy / "results.jsonl").write_text(json.dumps(mine[0]))
    with pytest.raises(ValueError, match="run to compare with has no sentence"):
        Gallery.from_run(run, variant="gs", compare=copy)


def test_a_sentence_that_failed_is_an_error_with_an_empty_mask(run, sample, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    row = json.loads((copy / "results.jsonl").read_text().split("\n")[0])
    rle = to_rle(np.zeros(sample.size, bool))["counts"]
    failed = row | {"error": "OSError: \u2028 gone", "rle": rle, "iou": 0.0, "head": ""}
    (copy / "results.jsonl").write_text(json.dumps(failed, ensure_ascii=False) + "\n", encoding="utf-8")
    (item,) = Gallery.from_run(copy, [replace(sample, path=tmp_path / "gone.jpg")]).items
    assert item.cause == "error"
    assert not item.mask.any()


def test_gallery_says_what_is_wrong_with_a_run(run, scene, sample, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run\.json; give the folder that `refdiff-lite evaluate`"):
        Gallery.from_run(tmp_path)
    copy = shutil.copytree(run, tmp_path / "copy")
    with pytest.raises(ValueError, match="no variant 'full': choose among gs, largest"):
        Gallery.from_run(copy, variant="full")
    with pytest.raises(ValueError, match="not in these samples"):
        Gallery.from_run(copy, [replace(sample, image_id=7)])
    with pytest.raises(ValueError, match="not in these samples"):
        Gallery.from_run(copy, [replace(sample, records=())])
    other = type(scene.model)(scene.model.networks, scene.config.replace(seed=1))
    with pytest.raises(ValueError, match="other networks or constants"):
        Gallery.from_run(copy, model=other)
    summary = copy / "summary.json"
    summary.write_text(summary.read_text().replace('"data": "toyref"', '"data": "refcoco"'))
    with pytest.raises(ValueError, match="run on refcoco: give the samples"):
        Gallery.from_run(copy)
    for damage in ("{", "[]\n", '{"iou": 1}\n'):
        (copy / "results.jsonl").write_text(damage)
        with pytest.raises(ValueError, match="is damaged"):
            Gallery.from_run(copy)
    (copy / "results.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="start it again, and it goes on"):
        Gallery.from_run(copy)


def test_what_a_person_typed_is_no_formula():
    typed = [replace(item, text=r"the $\frac$ cat", style="$^") for item in items()]
    assert Gallery(typed).still().startswith(b"\x89PNG")


# ---- all of them


def test_all_have_a_still_a_name_and_a_page(playground, tmp_path):
    for explorer in (playground, InversionExplorer(journeys(), [1, 401, 801]), Gallery(items())):
        assert explorer.still().startswith(b"\x89PNG")
        assert repr(explorer).startswith(type(explorer).__name__)
        assert "0x" not in repr(explorer)
        page = explorer.save_html(tmp_path / "page.html").read_text()
        assert "default-src 'none'" in page
        assert "export default" not in page


@pytest.mark.parametrize("kind", ["gallery", "inversion", "playground"])
def test_fifty_of_them_leave_nothing_behind(assert_nothing_stays, scene, kind):
    make = {
        "gallery": lambda: Gallery(items()),
        "inversion": lambda: InversionExplorer(journeys(), [1, 401, 801]),
        "playground": lambda: SegmentationPlayground(scene, "the red car", kinds=["oracle"]),
    }[kind]
    assert_nothing_stays(make)
