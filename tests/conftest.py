"""Tiny untrained networks that the tests share; everything runs offline and on one core."""

import gc
import os
import weakref

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

# Shapes and types in the signatures of these modules are checked whenever a test calls them.
STAGES = (
    "latents",
    "inversion",
    "attention",
    "unet_pass",
    "proposals",
    "ranking",
    "fusion",
    "networks.clip",
    "variants",
)
_hook = install_import_hook([f"refdiff_lite.{stage}" for stage in STAGES], "shapes.checked")

import numpy as np
import open_clip
import pytest
import tiny
import tiny_pipelines
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
def sd15_shape(tokenizer):
    """A tiny untrained pipeline with SD 1.5's blocks, its PNDM sampler, 8 heads, and the text encoder's 24 tokens."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8] * 4,
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
    )
    unet = UNet2DConditionModel(
        block_out_channels=(16, 16, 32, 32), cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    for part in (vae, unet):
        part.eval().requires_grad_(False)
    return StableDiffusionPipeline(
        vae, CLIPTextModel(text).eval(), tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


@pytest.fixture(scope="session")
def sd15_nets(sd15_shape, clip, clip_tokenizer, clip_dir):
    """The same with the small CLIP, as networks of the user's own; images of 64 pixels."""
    from refdiff_lite.networks import from_networks

    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_dir}")
    return from_networks(sd15_shape, clip, clip_tokenizer, preprocess, side=64)


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
    from refdiff_lite.widgets.recording import Attention

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


@pytest.fixture(scope="session")
def assert_nothing_stays():
    """Makes and closes fifty explorers; neither they nor what ipywidgets knows of them may stay."""
    import ipywidgets

    def known():  # ipywidgets 7 and 8 keep them in different places
        module = ipywidgets.widgets.widget
        return set(module._instances if hasattr(module, "_instances") else ipywidgets.Widget.widgets)

    def check(make):
        before, seen = known(), []
        for _ in range(50):
            explorer = make()
            seen.append(weakref.ref(explorer))
            explorer.close()
            del explorer
        gc.collect()
        assert [s() for s in seen] == [None] * 50
        assert known() == before

    return check


@pytest.fixture
def report(tmp_path):
    """A report in which everything failed that can, on data that want to run a script."""
    from pycocotools import mask as coco_mask

    from refdiff_lite import RefDiffConfig
    from refdiff_lite.datasets.toyref import load_toyref
    from refdiff_lite.evaluation.report import write_report
    from refdiff_lite.evaluation.summary import gains, slices, summarise

    evil = '<script>alert("x")</script> & cat'
    samples = load_toyref("val", "noun", 4)
    rows = []
    for s in samples:
        for r in s.records:
            for variant in ("full", "random"):
                empty = coco_mask.encode(np.zeros(s.size, np.uint8, order="F"))["counts"].decode()
                rows.append({
                    "image_id": s.image_id, "sent_id": r.sent_id, "style": "noun", "text": evil, "variant": variant,
                    "intersection": 0, "union": 10, "iou": 0.0, "hit": False, "objects": 3, "same": 0, "area": 10,
                    "pixels": 100, "cues": [], "rle": empty,
                } | ({"alpha_iou": [0.1] * 11, "recall": 0.6} if variant == "full" else {}))  # fmt: skip
    rows[-1] |= {"error": f"ValueError: {evil}"}
    lead = [r for r in rows if r["variant"] == "full"]
    summary = {
        "variant": "full", **summarise(lead), "data": "toyref", "split": "val", "proposals": "oracle", "preset": "toy",
        "seed": 0, "images_total": 9, "complete": False, "missing_images": [5], "slices": slices(lead), "gains": gains(rows),
        "variants": {
            v: {style: summarise([r for r in rows if r["variant"] == v]) for style in ("all", "noun", "toyref")}
            for v in ("full", "random")
        },
        "published": [{"method": "Ref-Diff", "metric": "mIoU", "value": 37.21}], "comparable": ["a note"],
        "config": RefDiffConfig.toy().to_dict(),
    }  # fmt: skip
    write_report(tmp_path / "report.html", summary, rows, samples)
    return tmp_path / "report.html"


def _once(makers):
    """A function that makes each thing once."""
    made = {}

    def get(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = makers[name]()
        return made[name]

    return get


@pytest.fixture(scope="session")
def pipes():
    """Tiny pipelines by the name of their family, each with the arguments of its call."""
    return _once(tiny_pipelines.PIPELINES)


@pytest.fixture(scope="session")
def models():
    """Tiny models by the name of their family."""
    return _once(tiny.MODELS)


@pytest.fixture(scope="session")
def nets():
    """The bundled networks."""
    from refdiff_lite.networks import load

    return load("toy")


@pytest.fixture(scope="session")
def sample():
    """A test scene with at least three kinds that can each be named by a noun alone."""
    from refdiff_lite.datasets.toyref import load_toyref

    return next(s for s in load_toyref("test", "noun") if len(s.records) >= 3)


@pytest.fixture
def image():
    """(3, 96, 128) in [0, 1]."""
    return 0.3 + 0.4 * torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def masks():
    """Four masks of 96 × 128 pixels, the last one smaller than a patch."""
    out = torch.zeros(4, 96, 128, dtype=torch.bool)
    out[0, 10:50, 20:70] = True
    out[1, 60:90, 5:120] = True
    out[2, :, 64:] = True
    out[3, 3:6, 3:6] = True  # smaller than a patch
    return out
