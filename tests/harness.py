"""Stand-ins for networks that answer at once, and runs of the harness with them."""

import time
import zlib
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch

from refdiff_lite import RefDiffConfig
from refdiff_lite.evaluation.run import evaluate
from refdiff_lite.proposals import Proposals

CHEAP = ["full", "random", "largest", "oracle"]


class FakeScene:
    """Answers at once and always alike: the variants take the object that the text's checksum names."""

    def __init__(self, image, masks, config):
        self.full_size, self.config = image.shape[:2], config
        self.candidates = Proposals("oracle", torch.from_numpy(masks), image)

    def proposals(self, kind, word=None):
        return self.candidates

    def to_full(self, mask):
        return np.asarray(mask)

    def segment(self, text, variant, kind):
        masks = self.candidates.masks.numpy()
        best = zlib.crc32(text.encode()) % len(masks)
        scores = torch.arange(len(masks)).float()
        return SimpleNamespace(
            mask=masks[best], proposals=masks, scores={"S_G": scores, "S_D": -scores}, unread=text[77:]
        )  # fmt: skip


class FakeModel:
    def __init__(self, seed=0, weight=0.0, delay=0.0, fail=(), error=None, **settings):
        self.config, self.delay, self.fail, self.asked = RefDiffConfig.toy(seed=seed), delay, fail, 0
        self.error = error or RuntimeError("out of memory")
        net = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(net.weight, weight)
        torch.nn.init.zeros_(net.bias)
        schedule = SimpleNamespace(config={"steps_offset": 1, "_version": "x"})
        sd = SimpleNamespace(vae=net, unet=net, text_encoder=net, scheduler=schedule)
        own = {
            "name": "fake", "side": 128, "layers": "up", "self_layers": "", "sam_id": None, "dtype": torch.float32,
            "clip_mean": torch.full((3,), 0.5), "clip_std": torch.full((3,), 0.5),
        }  # fmt: skip
        self.networks = SimpleNamespace(sd=sd, clip=net, parts=[net, net, net, net], **own | settings)

    def set_image(self, image, oracle):
        self.asked += 1
        time.sleep(self.delay)
        if self.asked in self.fail:
            raise self.error
        return FakeScene(image, oracle, self.config)


def run(out, data, model=None, variants=CHEAP, **kwargs):
    """Evaluate without drawing a report, which takes longer than all of these runs; test_report.py looks at one."""
    with patch("refdiff_lite.evaluation.run.write_report"):
        return evaluate(
            model or FakeModel(), data, variants, "oracle", out, {"data": "toyref", "split": "val"}, **kwargs
        )


def lines(out):
    return (out / "results.jsonl").read_text().splitlines()
