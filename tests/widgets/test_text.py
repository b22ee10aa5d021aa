"""The text explorer's data: what is shown is what was recorded, and a page holds what it says."""

import csv

import numpy as np
import pytest
import traitlets

from refdiff_lite.networks import load
from refdiff_lite.networks.text_attention import TextAttention, attend_text
from refdiff_lite.widgets import TextExplorer
from refdiff_lite.widgets.base import EXPORT_BYTES, unpack

TEXT = "the small dog on the left"


@pytest.fixture(scope="module")
def toy():
    return load("toy")


@pytest.fixture
def shown(toy):
    return TextExplorer.from_networks(toy, TEXT)


def large(layers=24, heads=16, tokens=77):
    """As large as SD 2's text encoder, at the longest text."""
    rng = np.random.default_rng(0)
    maps = [np.tril(rng.random((heads, tokens, tokens), np.float32)) + 1e-6 for _ in range(layers)]
    maps = tuple((m / m.sum(-1, keepdims=True)).astype(np.float32) for m in maps)
    return TextAttention("long", "text_encoder", tuple(f"w{i}" for i in range(tokens)), maps)


def test_what_is_shown_is_what_was_recorded(shown, toy):
    found = attend_text(toy, TEXT)
    shown.choose(layer=1, head=2)
    assert np.array_equal(shown.shares(), found.maps[1][2])
    shown.start = False
    m = found.maps[1][2][:, 1:]
    assert np.allclose(shown.shares()[1:, 1:], m[1:] / m[1:].sum(1, keepdims=True), atol=1e-6)
    assert not shown.shares()[0].any()  # it looks at nothing but itself
    rows = list(csv.DictReader(shown.to_csv().splitlines()))
    assert len(rows) == len(found.tokens) ** 2
    row = next(r for r in rows if r["from"] == "3" and r["to"] == "2")
    assert (row["token"], row["looks at"]) == ("dog", "small")
    assert float(row["share"]) == pytest.approx(shown.shares()[3, 2], rel=1e-4)


def test_a_small_encoder_is_sent_whole_and_a_large_one_on_demand(shown):
    assert {f"layer/{i}" for i in (-1, 0, 1, 2)} <= shown.arrays().keys()
    big = TextExplorer(large(), layer=20)
    assert "layer/23" not in big.arrays()
    assert np.array_equal(big.answer("layer/23")["layer/23"], big.attention.maps[23])
    for name in ("layer/24", "head/1", "layer/x"):
        with pytest.raises(ValueError):  # noqa: PT011
            big.answer(name)


def test_a_page_of_any_encoder_keeps_within_its_size_and_says_what_is_missing(shown):
    assert shown.kept()[0]["left_out"] == ""
    big = TextExplorer(large(), layer=20)
    meta, block = big.kept()
    kept = unpack(meta["index"], block)
    assert {"layer/-1", "layer/20"} <= kept.keys()
    lost = sum(f"layer/{i}" not in kept for i in range(24))
    assert f"leaves out {lost} of 24 layers" in meta["left_out"]
    assert len(big.to_html()) <= EXPORT_BYTES


def test_another_text_is_asked_and_a_wrong_one_refused_in_words(shown):
    shown.token = 3
    shown._handle_custom_msg({"sentence": "a car"}, [])
    assert shown.attention.tokens == ("start", "a", "car", "end")
    assert shown.token == -1
    shown._handle_custom_msg({"sentence": "   "}, [])
    assert "the text is empty" in shown._error
    assert shown.attention.text == "a car"
    shown._handle_custom_msg({"sentence": "a dog"}, [])
    assert shown._error == ""
    with pytest.raises(ValueError, match="from_networks"):
        TextExplorer(shown.attention).ask("a dog")


def test_choices_are_checked(shown):
    with pytest.raises(traitlets.TraitError, match="0 to 7"):
        shown.token = 8
    with pytest.raises(traitlets.TraitError, match="layers have the numbers 0 to 2"):
        TextExplorer(shown.attention, layer=3)
    with pytest.raises(ValueError, match="heads 0 to 3"):
        TextExplorer(shown.attention, layer=1, head=4).shares()


def test_stills_are_pictures_and_vectors(shown, tmp_path):
    shown.choose(layer=0, head=1)
    assert shown.still().startswith(b"\x89PNG")
    assert "layer 0, head 1" in repr(shown)
    assert "<svg" in shown.save_svg(tmp_path / "text.svg").read_text()
    odd = TextAttention("$x^", "clip", ("start", "$x^", "end"), (np.eye(3, dtype=np.float32)[None],))
    assert TextExplorer(odd).still()
