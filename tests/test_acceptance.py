"""refdiff-lite check: green on the toy, and each line red when its stage is broken."""

import copy
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from refdiff_lite import RefDiff, acceptance
from refdiff_lite.acceptance import STAGES, Bench
from refdiff_lite.cli import app
from refdiff_lite.datasets.photos import load_photos
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.files import data_dir
from refdiff_lite.networks import load
from refdiff_lite.proposals import felzenszwalb


@pytest.fixture(scope="module")
def whole():
    return load("toy")


@pytest.fixture
def bench(whole):
    """Two scenes and networks of one's own, to break."""
    networks = copy.copy(whole)
    networks.sd, networks.clip = copy.copy(whole.sd), copy.deepcopy(whole.clip)
    for part in ("vae", "unet", "text_encoder", "scheduler"):
        setattr(networks.sd, part, copy.deepcopy(getattr(whole.sd, part)))
    known = json.loads((data_dir() / "models" / "toy" / "acceptance.json").read_text())
    return Bench(RefDiff(networks), load_toyref("val", limit=2), known["at_least"], "measured by us")


def shake(network, much=1.0):
    """Every weight moved by as much as weights differ."""
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        p.data += much * p.data.std().nan_to_num(0.1) * torch.randn(p.shape, generator=generator)


def no_final_norm(bench, monkeypatch):
    encoder = bench.nets.sd.text_encoder
    handle = getattr(encoder, "text_model", encoder).final_layer_norm
    handle.forward = lambda x: x


def other_offset(bench, monkeypatch):
    bench.nets.sd.scheduler.register_to_config(steps_offset=0)
    bench.nets.__dict__.pop("scheduler", None)
    monkeypatch.setattr("refdiff_lite.acceptance.ddim_timesteps", lambda s, n: list(range(0, 1000, 50)))


def wrong_way(bench, monkeypatch):
    """Inverted with another noise schedule than the way back."""
    inverted = acceptance.invert
    monkeypatch.setattr(acceptance, "invert", lambda *a, **k: [x * 1.3 for x in inverted(*a, **k)])


def shifted(image):
    return felzenszwalb(image).roll((20, 20), (1, 2))


BROKEN = {
    "files": lambda bench, monkeypatch: monkeypatch.setattr(acceptance, "checksum", lambda path: "0" * 64),
    "device and precision": lambda bench, monkeypatch: bench.nets.clip.half(),
    "vae": lambda bench, monkeypatch: shake(bench.nets.sd.vae.decoder, 0.5),
    "text encoder": no_final_norm,
    "scheduler": other_offset,
    "painting": lambda bench, monkeypatch: shake(bench.nets.sd.unet, 0.5),
    "clip labels": lambda bench, monkeypatch: shake(bench.nets.clip, 2),
    "word maps": lambda bench, monkeypatch: monkeypatch.setattr("refdiff_lite.scene.token_positions", lambda *a: [0]),
    "self attention": lambda bench, monkeypatch: shake(bench.nets.sd.unet, 0.5),
    "ddim inversion": wrong_way,
    "proposals": lambda bench, monkeypatch: monkeypatch.setattr("refdiff_lite.scene.generators.felzenszwalb", shifted),
    "variants": lambda bench, monkeypatch: monkeypatch.setattr(
        "refdiff_lite.scene.fusion.choose", lambda s: int(s.argmin()) if len(s) else None
    ),
    "same again": lambda bench, monkeypatch: monkeypatch.setattr(
        "refdiff_lite.scene.add_noise", lambda s, x, n, t: torch.randn_like(x) * np.random.default_rng().integers(1, 99)
    ),
}


def test_every_stage_has_its_breakage():
    assert list(BROKEN) == list(STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_green_and_turns_red_when_it_is_broken(bench, monkeypatch, name):
    found, expected, ok, todo = STAGES[name](bench)
    assert ok, (found, expected)
    bench.__dict__.pop("scenes", None)
    bench.model.__dict__.pop("empty_prompt", None)
    BROKEN[name](bench, monkeypatch)
    found, expected, ok, todo = STAGES[name](bench)
    assert not ok, (found, expected)
    assert todo


def test_the_report_tells_everything_and_an_error_is_a_line(bench, monkeypatch, tmp_path):
    def fails(bench):
        raise ValueError("the unet gave numbers that are not finite")

    monkeypatch.setattr(acceptance, "STAGES", {"scheduler": STAGES["scheduler"], "vae": fails})
    lines = list(acceptance.run(bench.model))
    assert [line.ok for line in lines] == [True, False]
    assert "not finite" in str(lines[1])
    acceptance.write_report(bench.model, lines, tmp_path)
    told = json.loads((tmp_path / "check.json").read_text())
    assert (told["preset"], len(told["lines"])) == ("toy", 2)
    page = (tmp_path / "check.md").read_text()
    assert page.startswith("refdiff-lite check toy: 1 of 2 on cpu")
    assert "| ✗ | vae | ValueError: the unet gave numbers" in page


def test_the_command_ends_with_1_when_a_stage_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(acceptance, "STAGES", {"scheduler": STAGES["scheduler"]})
    found = CliRunner().invoke(app, ["check", "--out", str(tmp_path)])
    assert (found.exit_code, "1 of 1 stages as expected" in found.output) == (0, True)
    monkeypatch.setattr(acceptance, "STAGES", {"scheduler": lambda bench: ("0, 50", "1, 51", False, "fetch it again")})
    found = CliRunner().invoke(app, ["check", "--out", str(tmp_path)])
    assert found.exit_code == 1
    assert "to do: fetch it again" in found.output


def test_what_sd15_is_expected_to_do_has_a_source_each():
    known = json.loads((data_dir() / "models" / "sd15" / "acceptance.json").read_text())
    toy = json.loads((data_dir() / "models" / "toy" / "acceptance.json").read_text())
    assert known["at_least"].keys() == toy["at_least"].keys()
    assert {name.split(" ")[0] if name.startswith("variant") else name for name in known["at_least"]} == {
        "variant" if name == "variants" else name for name in known["sources"]
    }
    assert acceptance.PHOTOGRAPHS.keys() == {s.path.stem for s in load_photos()}


def test_networks_of_sd15s_shape_go_through_every_stage(sd15_nets, monkeypatch):
    """Random weights: hardly a line is green, but none is an error."""
    monkeypatch.setattr(acceptance, "load_photos", lambda: load_photos()[2:3])
    stages = {name: f for name, f in STAGES.items() if name != "proposals"}  # no SAM here
    monkeypatch.setattr(acceptance, "STAGES", stages)
    lines = {line.stage: line for line in acceptance.run(RefDiff(sd15_nets))}
    assert lines.keys() == stages.keys()
    assert not [line for line in lines.values() if "Error" in line.found]
    assert lines["scheduler"].ok
    assert lines["same again"].ok
    assert "not yet seen by us" in lines["word maps"].expected
