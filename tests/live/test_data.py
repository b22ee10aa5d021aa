"""What the page is told: patterns that mean the same in JavaScript, and only what it can do."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from refdiff_lite.config import RefDiffConfig
from refdiff_lite.live import data
from refdiff_lite.networks import load


@pytest.fixture(scope="module")
def toy():
    return load("toy")


def test_patterns_hold_nothing_that_javascript_reads_otherwise():
    lists = data.lists()
    for pattern in (lists["asking"], lists["mark"], lists["word"], *(p for _, p in lists["endings"])):
        assert not any(piece in pattern for piece in (r"\b", r"\d", r"\W", r"\s", "(?P", "++"))


def test_characters_are_mended_as_by_clip_s_tokenizer(toy):
    told = data.tokenizer(toy)["mended"]
    assert [told["’"], told["“"], told["ﬁ"], told["Ｃ"], told["\x01"]] == ["'", '"', "fi", "C", ""]
    assert not {"a", "é", "-", " "} & told.keys()
    for c, mend in told.items():
        assert toy.clip_tokenizer.clean_fn(f"x {c}y") == " ".join(f"x {mend}y".split()), repr(c)


def test_constants_are_the_preset_s(toy):
    config = RefDiffConfig.toy()
    told = data.constants(toy, config, [["down_blocks.1.a", "mid.a"], ["up_blocks.1.a"]])
    assert told["read"] == ["up_blocks.1.a"]
    assert told["alpha"] == pytest.approx(config.weight_g)
    assert len(np.frombuffer(base64.b64decode(told["noise"]), np.float32)) == 4 * 16 * 16
    assert told["timesteps"][config.noise_step] == 51


@pytest.mark.parametrize("change", [{"draws": 2}, {"crop_resize": "shorter"}, {"noise": "ddim"}])
def test_a_config_that_the_page_cannot_follow_is_refused(toy, change):
    with pytest.raises(ValueError, match=next(iter(change))):
        data.constants(toy, replace(RefDiffConfig.toy(), **change), [[], []])


def test_scenes_offer_a_sentence_for_each_thing_with_its_true_mask():
    for scene in data.scenes():
        assert [s["target"] for s in scene["sentences"]] == list(range(len(scene["masks"])))
