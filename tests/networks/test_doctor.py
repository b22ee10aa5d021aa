"""What is installed and ready, and what to do about each gap."""

import torch
from typer.testing import CliRunner

from refdiff_lite.cli import app
from refdiff_lite.networks import hub
from refdiff_lite.networks.doctor import report


def test_doctor_names_versions_presets_and_device():
    found = CliRunner().invoke(app, ["doctor"])
    assert found.exit_code == 0
    for word in ("python", "torch", "diffusers", "ipywidgets", "device", "disk"):
        assert f"\n{word} " in f"\n{found.output}"
    assert "preset toy       ready, offline" in found.output


def test_doctor_says_what_to_do_about_each_gap(monkeypatch, tmp_path):
    gib = 2**30
    monkeypatch.setattr("refdiff_lite.networks.doctor.versions", lambda names: {"anywidget": "missing"})
    monkeypatch.setattr("refdiff_lite.networks.doctor.device_and_dtype", lambda: (torch.device("cuda"), torch.float16))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (5 * gib, 16 * gib))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "T4")
    monkeypatch.setattr("refdiff_lite.networks.doctor.data_dir", lambda: tmp_path)
    monkeypatch.setattr(hub.Weights, "missing", lambda self: list(self.files))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    said = dict(report())
    assert said["anywidget"] == "missing <- pip install anywidget"
    assert said["device"].startswith("cuda, float16")
    assert said["GPU memory"] == "5.0 of 16.0 GiB free"
    assert said["preset toy"] == "weights are missing <- install again, or make train-toy"
    assert said["preset sd15"] == (
        "weights of Stable Diffusion, CLIP, SAM are missing or damaged, 3.1 GB <- unset HF_HUB_OFFLINE, then refdiff-lite "
        "download sd15; GPU memory is short <- --low-memory"
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (15 * gib, 16 * gib))
    monkeypatch.setattr(hub.Weights, "missing", lambda self: [])
    assert dict(report())["preset sd15"] == "ready, offline; fits T4"
