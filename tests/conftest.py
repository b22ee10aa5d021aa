"""Tiny untrained networks that the tests share; everything runs offline and on one core."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import open_clip
import pytest
import torch

from refdiff_lite.toy.tokenizer import corpus, train_tokenizer
from refdiff_lite.toy.train_clip import make_clip, save_clip
from refdiff_lite.toy.train_unet import make_scheduler, make_unet
from refdiff_lite.toy.train_vae import make_vae


def _frozen(make, *args):
    torch.manual_seed(0)
    return make(*args).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def unet():
    return _frozen(make_unet)


@pytest.fixture(scope="session")
def vae():
    return _frozen(make_vae)


@pytest.fixture
def scheduler():
    return make_scheduler()


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(corpus(200))


@pytest.fixture(scope="session")
def clip(tokenizer):
    return _frozen(make_clip, len(tokenizer))


@pytest.fixture(scope="session")
def clip_dir(clip, tokenizer, tmp_path_factory):
    """An open_clip local dir, as the bundled one was written."""
    folder = tmp_path_factory.mktemp("clip")
    save_clip(clip, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def clip_tokenizer(clip_dir):
    return open_clip.get_tokenizer(f"local-dir:{clip_dir}")


@pytest.fixture(scope="session")
def half():
    """CLIP's mean and its standard deviation, 0.5 for each channel."""
    return torch.full((3,), 0.5)


@pytest.fixture
def noise():
    """Seeded normal noise of any shape."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator)


@pytest.fixture(scope="session")
def scene():
    """A test scene under the bundled networks, with its true masks."""
    from refdiff_lite import RefDiff
    from refdiff_lite.datasets.toyref import load_toyref

    sample = load_toyref("test")[0]
    return RefDiff.from_preset("toy").set_image(sample.path, oracle=sample.masks)


@pytest.fixture(scope="session")
def recorded():
    """Makes attention as a UNet with layers on such grids would give it, from random numbers."""
    from refdiff_lite.widgets.attention import Attention

    def make(grids=((4, 4), (2, 2)), heads=2, steps=2, words=("start", "a", "cat", "end"), side=32, self_side=4):
        rng = np.random.default_rng(0)
        cross = tuple(
            {
                f"blocks.{i}": rng.normal(size=(heads, h, w, len(words) + 3)).astype(np.float32)
                for i, (h, w) in enumerate(grids)
            }
            for _ in range(steps)
        )
        looks = rng.random((steps, *[self_side] * 4)).astype(np.float32)
        return Attention(
            image=rng.integers(0, 255, (side, side, 3), dtype=np.uint8),
            words=words,
            head=len(words) - 2,
            timesteps=tuple(range(1, 1 + 50 * steps, 50)),
            cross=cross,
            columns=tuple(range(len(words))),
            self_maps=tuple(looks / looks.sum((-2, -1), keepdims=True)),
            reads=("blocks.0",),
        )

    return make
