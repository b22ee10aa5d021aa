"""Tiny untrained networks that the tests share; everything runs offline and on one core."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

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
