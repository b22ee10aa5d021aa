"""The presets of networks."""

import pytest

from refdiff_lite.config import RefDiffConfig, default_config
from refdiff_lite.networks import hub, loading
from refdiff_lite.networks.presets import CLIP_MODELS, PRESETS


def test_unknown_preset_is_named():
    with pytest.raises(ValueError, match="choose one of toy, toy-dit, sd15"):
        loading.load("sdxl")


def test_each_preset_brings_its_constants():
    assert default_config("toy") == RefDiffConfig.toy()
    assert default_config("sd15") == RefDiffConfig.paper()


def test_presets_and_clip_models_are_in_the_table():
    sd15 = PRESETS["sd15"]
    assert {sd15.sd, sd15.clip, sd15.sam, *CLIP_MODELS} <= hub.WEIGHTS.keys()
