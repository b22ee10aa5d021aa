"""Presets of networks: one table, clear refusals."""

import re
from pathlib import Path

import pytest
import torch

import refdiff_lite
from refdiff_lite.networks import loading


def test_the_toy_is_an_ordinary_pipeline_and_an_open_clip_model():
    nets = loading.load("toy")
    parts = (nets.sd.vae, nets.sd.text_encoder, nets.sd.unet, nets.sd.scheduler, nets.clip)
    names = [type(part).__name__ for part in parts]
    assert names == ["AutoencoderKL", "CLIPTextModel", "UNet2DConditionModel", "DDIMScheduler", "CLIP"]
    assert not any(part.training for part in (nets.sd.vae, nets.sd.unet, nets.clip))
    assert nets.sd.unet.dtype == next(nets.clip.parameters()).dtype == loading.device_and_dtype()[1]
    assert (nets.factor, nets.multiple) == (8, 16)
    image = nets.sd("a cat", num_inference_steps=2, height=128, width=128, generator=torch.Generator().manual_seed(0))
    assert image.images[0].size == (128, 128)


def test_one_module_chooses_device_and_dtype():
    """All others take them from the networks and tensors that they are given; networks that wait do so on the CPU. (The toy's training writes half files.)"""
    choice = re.compile(r"torch\.device\(|torch\.b?float\d|\.(cuda|half|bfloat16|double)\(|(device=|\.to\()[\"']")
    library = Path(refdiff_lite.__file__).parent
    files = [p for p in library.rglob("*.py") if p.parent.name not in ("toy", "checks")]
    assert sorted(p.name for p in files if choice.search(p.read_text(encoding="utf-8"))) == [
        "loading.py",
        "networks.py",
    ]


def test_missing_bundled_weights_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "data_dir", lambda: tmp_path)
    with pytest.raises(OSError, match="make train-toy"):
        loading.load("toy")


def test_sd15_offline_names_the_offline_preset(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(loading, "load_pipeline", unreachable)
    with pytest.raises(OSError, match='offline preset "toy"'):
        loading.load("sd15")
