import dataclasses
import json

import numpy as np
import pytest

from refdiff_lite.config import PAPER_VARIANTS, PROPOSALS, SUCCESSORS, VARIANTS, RefDiffConfig, default_config
from refdiff_lite.files import data_dir


def test_default_is_the_papers():
    paper = RefDiffConfig.paper()
    assert paper == RefDiffConfig()
    assert (paper.num_steps, paper.noise_step, paper.denoise_steps, paper.draws) == (20, 2, (2,), 1)
    assert (paper.weight_g, paper.weight_d, paper.beta) == (0.1, 0.9, 0.3)
    assert (paper.scores, paper.normalise, paper.noise, paper.guidance) == ("softmax", "mean", "random", 1.0)
    assert (paper.thresholds, paper.weak_choice, paper.keep_largest, paper.min_area) == (19, "score", None, 0)
    assert (paper.noun_in_crop, paper.noun_in_masked, paper.positional_bias) == (0.5, 0.5, "masked")


def test_official_has_the_codes_constants():
    official = RefDiffConfig.official()
    assert (official.noise_step, official.denoise_steps) == (2, (1, 0))
    assert (official.guidance, official.attention_guidance, official.scores) == (9.0, True, "logits")
    assert (official.weight_g, official.weight_d, official.beta) == (0.05, 1.0, 0.3)
    assert (official.keep_largest, official.min_area, official.prompt_suffix) == (10, 10_001, ", ")
    assert (official.side_factor, official.pad, official.normalise, official.upsample) == (2, True, "each", "lanczos")
    assert (official.noun_in_crop, official.noun_in_masked) == (0.0, 0.5)
    assert (official.positional_bias, official.axes, official.ramp) == ("crop", "horizontal", 2 / 3)


@pytest.mark.parametrize("preset", [RefDiffConfig.paper, RefDiffConfig.official, RefDiffConfig.toy])
def test_presets_take_changes_and_check_them(preset):
    assert preset(seed=7) == preset().replace(seed=7)
    assert preset(seed=7).seed == 7
    with pytest.raises(TypeError, match="sead"):
        preset(sead=7)
    with pytest.raises(ValueError, match="beta"):
        preset(beta=2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_steps", 0),
        ("num_steps", 1000),
        ("noise_step", -1),
        ("noise_step", 20),
        ("denoise_steps", ()),
        ("denoise_steps", (0, 20)),
        ("denoise_steps", (-1,)),
        ("noise", "none"),
        ("draws", 0),
        ("attention_guidance", True),  # without guidance there is nothing to guide with
        ("scores", "sigmoid"),
        ("normalise", "all"),
        ("thresholds", 0),
        ("weak_choice", "best"),
        ("keep_largest", 0),
        ("min_area", -1),
        ("crop_resize", "pad"),
        ("masked_side", "half"),
        ("noun_in_crop", 1.1),
        ("noun_in_masked", -0.1),
        ("positional_bias", "all"),
        ("side_factor", 0),
        ("upsample", "nearest"),
        *(
            (name, bad)
            for name in ("weight_g", "weight_d", "guidance")
            for bad in (float("nan"), -3, float("inf"), "1")
        ),
        ("layers", "["),
        ("layers", 3),
        ("prompt_suffix", None),
        ("thresholds", 2.5),
        ("thresholds", True),
        ("num_steps", 20.0),
        ("pad", "no"),
        ("pad", 1),
        ("denoise_steps", (0, 1)),
        ("denoise_steps", (1, 1)),
        ("denoise_steps", (1.5,)),
        ("denoise_steps", "1"),
        ("denoise_steps", 1),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 0.5),
        ("ramp", 0),
        ("ramp", 1.5),
        ("axes", "vertical"),
        ("beta", -0.1),
    ],
)
def test_wrong_values_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        RefDiffConfig(**{name: value})
    with pytest.raises(ValueError, match=name):
        RefDiffConfig().replace(**{name: value})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pad": True, "propagate": 1}, "propagation knows no padding"),
        ({"weight_g": 0, "weight_d": 0}, "every score would be 0"),
        ({"attention_guidance": True}, "needs guidance"),
        ({"num_steps": 10, "noise_step": 10}, "the last step is 9"),
        ({"weight_g": float("nan")}, "a number from 0 to 1000"),
        ({"thresholds": 2.5}, "a whole number from 1 to 255"),
        ({"layers": "["}, "no regular expression"),
        ({"denoise_steps": (0, 1)}, "falling order"),
    ],
)
def test_a_refusal_says_the_range_or_the_reason(changes, said):
    with pytest.raises(ValueError, match=said):
        RefDiffConfig(**changes)


def test_numbers_of_numpy_and_lists_of_json_are_taken():
    config = RefDiffConfig(seed=np.int64(3), beta=np.float32(0.5), denoise_steps=[2, 1])
    assert config == RefDiffConfig(seed=3, beta=0.5, denoise_steps=(2, 1))
    assert hash(config) == hash(RefDiffConfig(seed=3, beta=0.5, denoise_steps=(2, 1)))
    assert json.loads(json.dumps(config.to_dict()))["seed"] == 3
    assert RefDiffConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_the_official_constants_of_each_data_set():
    assert [RefDiffConfig.official(d).min_area for d in ("refcoco", "refcoco+", "refcocog")] == [10_001, 10_001, 0]
    assert RefDiffConfig.official("refcocog", min_area=5).min_area == 5
    with pytest.raises(ValueError, match="refcocog"):
        RefDiffConfig.official("coco")


def test_the_toys_constants_are_those_chosen_on_val():
    chosen = json.loads((data_dir() / "models" / "toy" / "tune.json").read_text())["chosen"]
    toy = RefDiffConfig.toy().to_dict()
    assert {k: toy[k] for k in chosen} == chosen | {"denoise_steps": tuple(chosen["denoise_steps"])}
    assert (toy["weak_choice"], toy["masked_side"]) == ("otsu", "full")
    assert default_config("toy", seed=3) == RefDiffConfig.toy(seed=3)
    assert default_config("sd15", seed=3) == RefDiffConfig.paper(seed=3)


def test_compare_shows_every_constant_with_its_values_and_meaning():
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in RefDiffConfig.compare().split("\n")]
    rows = {row[0]: row[1:] for row in table[2:]}
    assert table[0] == ["constant", "paper", "official", "toy", "what it is"]
    assert table[1] == ["---"] * 5
    assert rows["ramp"][1] == "**0.667**"
    assert rows["prompt_suffix"][0] == "–"
    assert list(rows) == RefDiffConfig.names()
    assert rows["weight_g"][:3] == ["0.1", "**0.05**", "**0.2**"]
    assert rows["seed"][:3] == ["0", "0", "0"]
    assert all(len(row) == 4 and len(row[3]) > 15 for row in rows.values()), "a constant without a source"


def test_a_wrong_choice_is_answered_with_the_right_ones():
    with pytest.raises(ValueError, match="softmax, logits"):
        RefDiffConfig(scores="sigmoid")


@pytest.mark.parametrize(
    "changes", [{"num_steps": 1, "noise_step": 0, "denoise_steps": (0,)}, {"ramp": 1}, {"beta": 0}, {"keep_largest": 1}]
)
def test_limits_themselves_are_allowed(changes):
    assert RefDiffConfig(**changes).to_dict().items() >= changes.items()


def test_frozen_hashable_and_back_from_a_dict():
    config = RefDiffConfig.official()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    assert {config, RefDiffConfig.official()} == {config}
    assert RefDiffConfig(**config.to_dict()) == config
    assert list(config.to_dict()) == RefDiffConfig.names()


def test_kinds_of_variants_and_proposals():
    assert PAPER_VARIANTS == ("g", "gs", "ds", "full")
    assert VARIANTS == (*PAPER_VARIANTS, *SUCCESSORS) == (*PAPER_VARIANTS, "refam", "concept", "hybridgl", "relations")
    assert set(PROPOSALS) == {"weak", "felzenszwalb", "grouping", "self-attention", "sam", "oracle"}
