"""Weights on the hub: the table, refusals before any download, and a cache that holds what it should."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from refdiff_lite.cli import app
from refdiff_lite.networks import hub


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


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1719125304\n"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A small entry of the table, whose files lie in a cache as the hub's client keeps them."""
    save_file({"a": torch.zeros(100, 100), "b": torch.zeros(3)}, tmp_path / "w.safetensors", metadata={"format": "pt"})
    size = (tmp_path / "w.safetensors").stat().st_size
    weights = hub.Weights(
        "some/model", "0" * 40, {"config.json": 0, "merges.txt": 0, "unet/w.safetensors": size}, "MIT"
    )
    monkeypatch.setitem(hub.WEIGHTS, "small", weights)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    folder = tmp_path / "hub" / "models--some--model" / "snapshots" / weights.revision
    (folder / "unet").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "merges.txt").write_text("a b")
    (tmp_path / "w.safetensors").replace(folder / "unet" / "w.safetensors")
    monkeypatch.setattr(
        hub,
        "try_to_load_from_cache",
        lambda repo, file, revision: str(folder / file) if (folder / file).exists() else None,
    )
    return folder


def test_what_is_in_the_cache_is_not_counted(cache):
    weights, file = hub.WEIGHTS["small"], cache / "unet" / "w.safetensors"
    assert (weights.missing(), weights.to_download) == ([], 0)
    file.unlink()
    assert (weights.missing(), weights.to_download) == (["unet/w.safetensors"], weights.files["unet/w.safetensors"])
    assert hub.WEIGHTS["sd15"].to_download == sum(hub.WEIGHTS["sd15"].files.values()) > 2e9


def cut(content):
    return content[: len(content) // 2]


def header(content, text):
    return len(text).to_bytes(8, "little") + text + content[8 + int.from_bytes(content[:8], "little") :]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("unet/w.safetensors", lambda c: b""),
        ("unet/w.safetensors", lambda c: POINTER),
        ("unet/w.safetensors", cut),
        ("unet/w.safetensors", lambda c: c[:-1]),
        ("unet/w.safetensors", lambda c: c + b"0"),
        ("unet/w.safetensors", lambda c: c[:5]),
        ("unet/w.safetensors", lambda c: bytes(len(c))),
        ("unet/w.safetensors", lambda c: b"<!DOCTYPE html>" + c[15:]),
        ("unet/w.safetensors", lambda c: header(c, b"{}")),
        ("unet/w.safetensors", lambda c: header(c, b"[1]")),
        ("unet/w.safetensors", lambda c: header(c, json.dumps({"a": {"data_offsets": [0, 16]}}).encode())[:74]),
        ("config.json", lambda c: b""),
        ("config.json", lambda c: POINTER),
        ("config.json", lambda c: b'{"a": '),
        ("merges.txt", lambda c: b""),
        ("merges.txt", lambda c: POINTER),
    ],
)
def test_a_damaged_file_is_missing_and_is_fetched_anew(cache, monkeypatch, name, damage):
    file, weights, asked = cache / name, hub.WEIGHTS["small"], []
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert weights.missing() == [name]

    def download(repo, name, revision, force_download):
        asked.append((name, force_download))
        file.write_bytes(whole)
        return str(cache / name)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert hub.fetch("small") == cache
    assert asked == [(name, True)]
    assert weights.missing() == []


def test_what_stays_damaged_is_told_and_removed(cache, monkeypatch):
    (cache / "config.json").write_bytes(POINTER)
    monkeypatch.setattr(hub, "hf_hub_download", lambda repo, file, **k: str(cache / file))
    with pytest.raises(OSError, match=r"some/model could not be downloaded.*config\.json came damaged"):
        hub.fetch("small")
    assert not (cache / "config.json").exists()


def test_a_damaged_cache_is_not_ready_offline(cache, monkeypatch):
    (cache / "unet" / "w.safetensors").write_bytes(POINTER)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="small are not on this machine, or are damaged"):
        hub.fetch("small")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(36, "File name too long")])
def test_a_cache_that_may_not_be_looked_at(cache, monkeypatch, error):
    """As root sees any folder, the refusal is played."""

    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(hub, "try_to_load_from_cache", refuse)
    monkeypatch.setattr(hub.shutil, "disk_usage", refuse)
    assert hub.free_bytes(Path("/closed/hub")) == 0
    with pytest.raises(OSError, match=r"only 0\.0 GB are free.*that you may write to"):
        hub.fetch("small")
    found = CliRunner().invoke(app, ["doctor"])
    assert found.exit_code == 0, found.output
    assert "missing or damaged" in found.output


def test_offline_is_refused_with_the_way_out(empty_cache, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "hf_hub_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(OSError, match=r'sd15 .*HF_HUB_OFFLINE.*download sd15.*"toy"'):
        hub.fetch("sd15")


def test_a_small_disk_is_refused(empty_cache, monkeypatch):
    monkeypatch.setattr(hub, "hf_hub_download", lambda *a, **k: pytest.fail("began to download"))
    monkeypatch.setattr(hub, "free_bytes", lambda folder: 10**9)
    with pytest.raises(OSError, match=r"2\.1 GB are to be downloaded but only 1\.0 GB.*HF_HOME"):
        hub.fetch("sd15")


def test_free_bytes_of_a_folder_that_is_not_there_yet(tmp_path):
    assert hub.free_bytes(tmp_path / "a" / "b") > 0


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
