"""Weights on the hub: the table, and refusals before any download."""

import re

import pytest
from typer.testing import CliRunner

from refdiff_lite.cli import app
from refdiff_lite.networks import hub
from refdiff_lite.networks.presets import CLIP_MODELS, PRESETS


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "not" / "there"))
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *a, **k: None)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("name", hub.WEIGHTS)
def test_every_entry_is_pinned_and_free_of_pickles(name):
    weights = hub.WEIGHTS[name]
    assert re.fullmatch("[0-9a-f]{40}", weights.revision)
    assert all(file.endswith((".safetensors", ".json", ".txt")) for file in weights.files)
    assert {f for f, size in weights.files.items() if size} == {f for f in weights.files if f.endswith(".safetensors")}


def test_presets_and_clip_models_are_in_the_table():
    sd15 = PRESETS["sd15"]
    assert {sd15.sd, sd15.clip, sd15.sam, *CLIP_MODELS} <= hub.WEIGHTS.keys()


def test_what_is_in_the_cache_is_not_counted(empty_cache, monkeypatch):
    weights = hub.WEIGHTS["sd15"]
    assert weights.to_download == sum(weights.files.values()) > 2e9
    unet = "unet/diffusion_pytorch_model.fp16.safetensors"
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda repo, file, revision: "x" if file == unet else None)
    assert unet not in weights.missing()
    assert weights.to_download == sum(weights.files.values()) - weights.files[unet]


def test_offline_is_refused_with_the_way_out(empty_cache, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(OSError, match=r'sd15 .*HF_HUB_OFFLINE.*download sd15.*"toy"'):
        hub.fetch("sd15")


def test_a_small_disk_is_refused(empty_cache, monkeypatch):
    monkeypatch.setattr(hub, "snapshot_download", lambda *a, **k: pytest.fail("began to download"))
    monkeypatch.setattr(hub, "free_bytes", lambda folder: 10**9)
    with pytest.raises(OSError, match=r"2\.1 GB are to be downloaded but only 1\.0 GB.*HF_HOME"):
        hub.fetch("sd15")


def test_free_bytes_of_a_folder_that_is_not_there_yet(tmp_path):
    assert hub.free_bytes(tmp_path / "a" / "b") > 0


def test_exactly_the_listed_files_are_fetched_at_their_revision(empty_cache, monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(hub, "snapshot_download", lambda repo, **k: asked.update(repo=repo, **k) or str(tmp_path))
    assert hub.fetch("sam-base") == tmp_path
    weights = hub.WEIGHTS["sam-base"]
    assert asked == {
        "repo": weights.repo,
        "revision": weights.revision,
        "allow_patterns": list(weights.files),
        "local_files_only": False,
    }


@pytest.mark.parametrize("error", [RuntimeError("client closed"), ConnectionError("no route"), OSError(28, "no space")])
def test_a_broken_download_says_how_to_go_on(empty_cache, monkeypatch, error):
    def breaks(*args, **kwargs):
        raise error

    monkeypatch.setattr(hub, "snapshot_download", breaks)
    with pytest.raises(OSError, match=r"could not be downloaded .*goes on where it stopped"):
        hub.fetch("openai")


def test_download_tells_sizes_first(empty_cache, monkeypatch, tmp_path):
    fetched = []
    monkeypatch.setattr(hub, "fetch", fetched.append)
    found = CliRunner().invoke(app, ["download", "sd15", "--sam", "huge"])
    assert found.exit_code == 0, found.output
    assert fetched == ["sd15", "openai", "sam-huge"]
    assert found.output.index("2.13 GB") < found.output.index("0.60 GB") < found.output.index("2.56 GB")
    assert "OpenRAIL" in found.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["toy"], "bundled"), (["sd15", "--sam", "sam2"], "not one of"), (["sd15"], "HF_HUB_OFFLINE")],
)
def test_download_refuses_in_one_line(empty_cache, monkeypatch, arguments, said):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    found = CliRunner().invoke(app, ["download", *arguments])
    assert found.exit_code == 2
    assert said in found.output
