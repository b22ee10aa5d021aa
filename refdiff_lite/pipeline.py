"""Ref-Diff: networks and constants together. ``RefDiff.set_image`` (slow, once) -> ``Scene.segment`` (fast, often)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .config import RefDiffConfig, default_config
from .images import load_image
from .networks import Networks, check_networks, load
from .reading import check_reading
from .scene import Scene


class RefDiff:
    """Zero-shot referring segmentation with networks that were never trained for it (Ref-Diff, arXiv 2308.16777)."""

    def __init__(self, networks: Networks, config: RefDiffConfig | None = None) -> None:
        """Use networks of your own; :meth:`from_preset` is the short way."""
        check_networks(networks)
        self.networks = networks
        self.config = config or default_config(networks.name)
        if not networks.own_pass:
            check_reading(networks, self.config)

    @classmethod
    def from_preset(cls, name: str = "toy", config: RefDiffConfig | None = None, **choices: Any) -> RefDiff:
        """Load "toy" (bundled, CPU) or "sd15" (from the hub, GPU); for the choices see :func:`networks.load`."""
        return cls(load(name, **choices), config)

    def set_image(self, image: str | Path | Image.Image | np.ndarray, *, oracle: Any = None) -> Scene:
        """Do all that depends on the image alone (most of it when first needed).

        Args:
            image: whatever :func:`images.load_image` takes, such as a path, a PIL image or (H, W, 3) uint8 RGB.
            oracle: (N, H, W) bool ground-truth masks, to study what perfect proposals would give.
        """
        return Scene(self, load_image(image), oracle)

    @torch.no_grad()
    def encode_prompt(self, texts: list[str]) -> torch.Tensor:
        """Text encoder's last hidden states, (B, tokens, width) in the UNet's dtype; padded, cut to the encoder's length."""
        nets = self.networks
        for text in texts:
            if hasattr(nets.sd, "maybe_convert_prompt") and nets.sd.maybe_convert_prompt(text, nets.tokenizer) != text:
                raise ValueError(
                    f"{text!r} has a textual inversion of several vectors, of which only one would be read"
                )
        with nets.at_work():
            ids = nets.tokenizer(
                texts, padding="max_length", max_length=nets.tokenizer.model_max_length, truncation=True,
                return_tensors="pt",
            ).input_ids  # fmt: skip
            states = nets.use("text_encoder")(ids.to(nets.device)).last_hidden_state
        return nets.check_finite("text_encoder", states).to(nets.dtype)

    @cached_property
    def empty_prompt(self) -> torch.Tensor:
        """The encoded empty prompt, (1, tokens, width)."""
        return self.encode_prompt([""])
