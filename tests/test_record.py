"""What a trace has kept: its picture, maps, words, files and stills."""

import numpy as np
import pytest
import torch
from tiny_pipelines import NEGATIVE, PROMPT, paint

from refdiff_lite.record import Record
from refdiff_lite.trace import trace


def test_pieces_of_a_word_and_the_encoders_that_read_it(pipes):
    pipe, call = pipes("sd3")
    with trace(pipe) as record:
        paint(pipe, call, PROMPT)
    keys = record.keys("dog")
    assert len(keys["t5"]) > 1
    layers = [record.maps["+", layer, -1][0] for layer in record.layers]
    t5 = torch.stack([m[..., keys["t5"]] for m in layers]).mean(0)
    for pieces, truth in (("mean", t5.mean(-1)), ("sum", t5.sum(-1)), ("last", t5[..., -1])):
        found = record.scores_of("dog", pieces=pieces, encoder="t5")
        np.testing.assert_allclose(found, truth.numpy(), atol=1e-6)
    clip = record.scores_of("dog", encoder="clip")
    np.testing.assert_allclose(record.scores_of("dog"), (clip + t5.mean(-1).numpy()) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="encoder='llm': choose one of clip, t5"):
        record.keys("dog", encoder="llm")
    with pytest.raises(ValueError, match="pieces='first'"):
        record.scores_of("dog", pieces="first")


def test_words_that_come_twice_within_others_or_behind_the_limit(pipes):
    pipe, call = pipes("sd1")
    text = "a Dog and a hotdog and a dog " + "very " * 9 + "fast"
    with trace(pipe) as record:
        paint(pipe, call, text)
    first, second = record.keys("dog")["clip"], record.keys("dog", nth=1)["clip"]
    assert first == [2]
    assert second[0] > first[0] + 3
    with pytest.raises(ValueError, match="'dog' is not 3 times in"):
        record.keys("dog", nth=2)
    with pytest.raises(ValueError, match="behind the last token"):
        record.keys("fast")
    with pytest.raises(ValueError, match="'ho' is not in"):
        record.keys("ho")


@pytest.fixture(scope="module")
def record():
    """A generation by the bundled networks, with its picture."""
    from refdiff_lite.networks import load

    pipe = load("toy").sd
    with trace(pipe, steps=[0, 2], negative=True) as record:
        pipe(
            PROMPT, negative_prompt=NEGATIVE, num_inference_steps=3, height=96, width=128, guidance_scale=4.0,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
    return record


def test_the_record_has_the_picture_and_maps_of_its_size(record):
    assert [p.shape for p in record.images] == [(96, 128, 3)]
    c = record.word_map("dog")
    assert (c.shape, c.dtype, c.min()) == ((96, 128), np.float32, 0)
    assert c.max() == pytest.approx(1, abs=1e-4)
    assert record.word_map("dog", size=(12, 16)).shape == (12, 16)
    assert not np.array_equal(record.word_map("dog", negative=True), c)
    assert repr(record) == "Record(UNet2DConditionModel, cross, 1 images, 3 steps, 7 layers)"


def test_a_record_is_kept_in_a_file(record, tmp_path):
    path = record.save(tmp_path / "dog.safetensors")
    again = Record.load(path)
    assert again.layers == record.layers
    assert again.prompts == record.prompts
    assert (again.timesteps, again.steps) == (record.timesteps, record.steps)
    assert all(torch.equal(again.maps[k], m) for k, m in record.maps.items())
    np.testing.assert_array_equal(again.images[0], record.images[0])
    np.testing.assert_array_equal(again.word_map("cat", step=2), record.word_map("cat", step=2))


@pytest.mark.parametrize("damage", ["cut", "other", "text"])
def test_a_file_that_is_no_record_is_named(record, tmp_path, damage):
    from safetensors.torch import save_file

    path = record.save(tmp_path / "r.safetensors")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "text":
        path.write_text("no record")
    else:
        save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"r\.safetensors"):
        Record.load(path)


def test_stills(record):
    assert len(record.plot().axes) == 1 + 5
    assert len(record.plot(["dog", "cat"], by="step").axes) == 2 * 2
    figure = record.plot(["dog"], by="layer")
    assert [ax.get_title() for ax in figure.axes] == [f'"dog" {n}' for n in record.layers]
    shown = figure.axes[0].images[-1].get_array()
    np.testing.assert_allclose(shown, record.word_map("dog", layer=record.layers[0]), atol=1e-6)


def test_a_record_is_a_page_that_asks_for_nothing(record):
    page = record.to_html()
    assert page.startswith("<!doctype html>")
    assert "https://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert all(f'"{word}"' in page for word in ("dog", "left", "cat"))
