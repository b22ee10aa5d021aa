"""The ONNX files compute what the library's own networks compute."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from refdiff_lite.live import export
from refdiff_lite.networks import clip, load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toy():
    return load("toy")


@pytest.fixture(scope="module")
def run():
    """A function that runs one of the files; made by a Python of its own, without the tests' import hook, and kept."""
    onnxruntime = pytest.importorskip("onnxruntime")
    code = "from refdiff_lite.live.page import _exported; print(_exported()[0])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=600)
    folder = Path(done.stdout.split("\n")[-2])
    sessions = {
        p.stem: onnxruntime.InferenceSession(p, providers=["CPUExecutionProvider"]) for p in folder.glob("*.onnx")
    }
    sizes = {p.stem: p.stat().st_size for p in folder.glob("*.onnx")}
    run = lambda name, **inputs: sessions[name].run(None, {k: np.asarray(v) for k, v in inputs.items()})  # noqa: E731
    run.sizes = sizes
    return run


@pytest.mark.parametrize("name", ["vae", "text", "unet", "clip-text"])
@torch.no_grad()
def test_each_network_is_itself(run, toy, name):
    generator = torch.Generator().manual_seed(0)
    part = export._parts(toy)[name]
    inputs = {
        k: v if k == "t" else torch.randint(0, 700, v.shape, generator=generator).int() if v.dtype == torch.int32
        else torch.randn(v.shape, generator=generator) for k, v in part.inputs.items()
    }  # fmt: skip
    wanted = part.make(toy)(**inputs)
    for found, want in zip(run(name, **inputs), wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        assert np.abs(found - want.numpy()).max() < 5e-6


@torch.no_grad()
def test_one_tower_serves_crops_and_masks(run, toy):
    generator = torch.Generator().manual_seed(0)
    model, mean, std = toy.use("clip"), toy.clip_mean, toy.clip_std
    crops = torch.rand(3, 3, 64, 64, generator=generator)
    found = run("clip-image", pixels=clip.standardise(crops, mean, std, crops), hidden=np.zeros((65, 65), np.float32))[
        0
    ]
    assert np.abs(found[:, 0] - clip.encode_images(model, list(crops), mean, std).numpy()).max() < 5e-6
    pixels, masks = torch.rand(3, 128, 128, generator=generator), torch.rand(5, 128, 128, generator=generator) > 0.5
    masks[0, :64] = False
    hidden = (clip.mask_attention(clip.patches_of(masks, (16, 16), "half")) != 0).float()
    found = run("clip-image", pixels=clip.standardise(pixels[None], mean, std, pixels), hidden=hidden)[0][0]
    assert np.abs(found - clip.encode_masks(model, pixels, masks, (128, 128), mean, std).numpy()).max() < 5e-6


def test_weights_travel_as_half(run):
    """A network of fp32 would be twice as large; the sum of all is what browser.md's page may weigh."""
    assert sum(run.sizes.values()) < 12e6
