"""The first run on real weights, rehearsed: a stand-in hub serves repositories of the true layout, filled with noise."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from standin_hub import StandInHub
from standin_weights import expect, write_weights
from typer.testing import CliRunner

from refdiff_lite.cli import app
from refdiff_lite.networks import hub

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Every repository of the table, with the true names of files and tensors and a few channels each."""
    return write_weights(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def standin(weights, tmp_path, monkeypatch):
    """The hub's own client, asking the stand-in, with an empty cache."""
    server = StandInHub(weights)
    for name, value in {
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "DOWNLOAD_CHUNK_SIZE": 1 << 16,
    }.items():
        monkeypatch.setattr(hub.constants, name, value)
    monkeypatch.setattr(hub, "hf_hub_download", partial(hub.hf_hub_download, endpoint=server.url))
    for name, entry in expect(weights).items():
        monkeypatch.setitem(hub.WEIGHTS, name, entry)
    yield server
    server.close()


def left_over(tmp_path):
    return [p.name for p in tmp_path.rglob("*.incomplete")]


UNET = "unet/diffusion_pytorch_model.fp16.safetensors"


def run(*arguments):
    found = CliRunner().invoke(app, ["download", "sd15", *arguments])
    return found.exit_code, " ".join(found.output.split())


def test_all_comes_once_and_is_then_ready_offline(standin, monkeypatch):
    code, said = run("--sam", "huge")
    assert code == 0, said
    assert said.endswith("all here; now it runs offline")
    names = ("sd15", "openai", "sam-huge")
    assert all(not hub.WEIGHTS[n].missing() for n in names)
    assert len(standin.asked) == sum(len(hub.WEIGHTS[n].files) for n in names)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    before = len(standin.asked)
    assert all(sorted(p.name for p in hub.fetch(n).iterdir()) for n in names)
    assert run("--sam", "huge")[0] == 0
    assert len(standin.asked) == before


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (401, "wants a login, or its licence accepted (401)"),
        (403, "wants a login, or its licence accepted (403)"),
        (404, "does not have what we ask for (404)"),
        (503, "run `refdiff-lite download sd15` again later (the hub answers 503)"),
        ("wrong size", "run `refdiff-lite download sd15` again"),
        ("flipped", "diffusion_pytorch_model.fp16.safetensors came damaged and was removed"),
    ],
)
def test_what_goes_wrong_is_one_line_and_whole_files_are_kept(standin, tmp_path, fault, said, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda s: None)
    standin.faults[UNET] = fault
    code, output = run()
    assert (code, output.count("Traceback")) == (2, 0)
    assert said in output
    assert left_over(tmp_path) == []
    assert UNET in hub.WEIGHTS["sd15"].missing()
    kept = set(hub.WEIGHTS["sd15"].files) - set(hub.WEIGHTS["sd15"].missing())
    standin.faults.clear()
    standin.asked.clear()
    assert run()[0] == 0
    assert not kept & {file for file, _ in standin.asked}


def test_a_repository_that_is_gone(standin):
    standin.faults["*"] = 404
    code, output = run("--sam", "none")
    assert code == 2
    assert "look for a newer refdiff-lite" in output


def test_a_cut_line_is_taken_up_where_it_broke(standin):
    standin.faults[UNET] = "cut once"
    assert run()[0] == 0
    (first, again) = [start for file, start in standin.asked if file == UNET]
    assert first == 0 < again < hub.WEIGHTS["sd15"].files[UNET]


def test_what_a_killed_download_left_goes_and_what_is_being_written_stays(standin, tmp_path):
    blobs = tmp_path / "hub" / "models--facebook--sam-vit-base" / "blobs"
    blobs.mkdir(parents=True)
    for name in ("aa.1234.incomplete", "bb.1234.incomplete"):
        (blobs / name).write_bytes(b"half")
    locks = tmp_path / "hub" / ".locks" / "models--facebook--sam-vit-base"
    locks.mkdir(parents=True)
    with hub.FileLock(locks / "bb.lock"):
        hub.fetch("sam-base")
    assert left_over(tmp_path) == ["bb.1234.incomplete"]


def test_a_full_disk(standin, tmp_path, monkeypatch):
    original = Path.open

    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        Path,
        "open",
        lambda p, mode="r", *a, **k: (
            Full(original(p, mode, *a, **k)) if p.suffix == ".incomplete" else original(p, mode, *a, **k)
        ),
    )
    code, output = run()
    assert code == 2
    assert "the disk is full at" in output
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(("name", "typed"), [("laion", "--clip laion"), ("sam-huge", "--sam huge")])
def test_the_advice_fetches_what_is_missing(standin, monkeypatch, name, typed):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=f"refdiff-lite download sd15 {typed}`"):
        hub.fetch(name)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    assert run(*typed.split())[0] == 0
    assert not hub.WEIGHTS[name].missing()


def environment(server, cache, **more):
    return os.environ | {
        "HF_ENDPOINT": server.url, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]),
    } | more  # fmt: skip


def test_ctrl_c_is_obeyed_at_once(weights, tmp_path):
    server = StandInHub(weights)
    server.faults[UNET] = "slow"
    command = [sys.executable, "-m", "standin_weights", str(weights), "download", "sd15"]
    process = subprocess.Popen(
        command, env=environment(server, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    end = time.monotonic() + 120
    while not any(file == UNET for file, _ in server.asked):
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    server.close()
    assert process.returncode != 0
    assert b"Traceback" not in said
    assert left_over(tmp_path) == []


class User:
    """Somebody at a prompt, whose hub is the stand-in."""

    def __init__(self, served, folder):
        self.served, self.folder, self.server = served, folder, StandInHub(served)

    def types(self, *arguments, offline=True):
        command = [sys.executable, "-m", "standin_weights", str(self.served), *arguments]
        env = environment(self.server, self.folder / "home", HF_HUB_OFFLINE="1" if offline else "0")
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=self.folder, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


PICTURE = sorted((ROOT / "data" / "toyref" / "test" / "images").iterdir())[0]


@pytest.mark.slow
def test_a_first_session_from_download_to_evaluation(weights, tmp_path):
    """As a new user would: fetch, look, segment and measure; from the second command on without the hub."""
    user = User(weights, tmp_path)
    assert user.types("download", "sd15", offline=False).endswith("all here; now it runs offline\n")
    asked = len(user.server.asked)
    assert "preset sd15      ready, offline" in user.types("doctor")
    for proposals, dtype in (("sam", "float32"), ("felzenszwalb", "float16")):
        sd15 = ("--preset", "sd15", "--dtype", dtype, "--proposals", proposals, "--out", proposals)
        user.types("segment", str(PICTURE), "the cat on the left", *sd15)
        assert json.loads((tmp_path / proposals / "result.json").read_text())["preset"] == "sd15"
        assert (tmp_path / proposals / "mask.png").stat().st_size > 0
    user.types("evaluate", "toyref", "--limit", "1", "--preset", "sd15", "--dtype", "float16", "--out", "measured")
    assert json.loads((tmp_path / "measured" / "summary.json").read_text())["failed"] == 0
    assert len(user.server.asked) == asked
    user.server.close()


@pytest.mark.slow
def test_full_size_weights_fit_the_table(tmp_path):
    """Files of the true shapes have the sizes that the table promises, and one sentence is answered from them."""
    user = User(write_weights(tmp_path / "hub", full=True), tmp_path)
    user.types("download", "sd15", offline=False)
    for name in ("sd15", "openai", "sam-base"):
        for file, size in hub.WEIGHTS[name].files.items():
            if size:
                assert (tmp_path / "hub" / hub.WEIGHTS[name].repo / file).stat().st_size == pytest.approx(
                    size, rel=1e-3
                )
    user.types(
        "segment",
        str(PICTURE),
        "the cat on the left",
        "--preset",
        "sd15",
        "--variant",
        "gs",
        "--proposals",
        "felzenszwalb",
    )
    user.server.close()
