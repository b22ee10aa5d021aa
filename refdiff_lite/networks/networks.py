"""The networks as one object: whoever needs one asks it, and gets it on its device, in evaluation mode, alone."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from threading import RLock
from typing import Any

import torch

from . import hub
from .compat import ddim, fast_tokenizer, load_sam
from .words import model_of

SMALL = 30_000_000
"""Parameters of a UNet below which one core is best: the toy's has 2.5 million, Stable Diffusion's 860."""


@dataclass
class Networks:
    """The networks that Ref-Diff reads: a Stable Diffusion pipeline, an open_clip model with its tokenizer, SAM.

    Attributes:
        sam_id: key of :data:`hub.WEIGHTS`, a local folder or a hub id.
        low_memory: hold one network at a time on ``target``, the others on the CPU.
        call: more arguments for each call of a pipeline that is not Stable Diffusion 1 or 2, such as max_sequence_length.
        target: the device to compute on; None for the one that the pipeline is on.
    """

    sd: Any
    clip: Any
    clip_tokenizer: Any
    clip_mean: torch.Tensor
    clip_std: torch.Tensor
    side: int
    layers: str = ""
    sam_id: str | None = None
    note: str = ""
    name: str = "custom"
    self_layers: str = ""
    low_memory: bool = False
    target: torch.device | None = None
    call: dict[str, Any] = field(default_factory=dict)
    _resident: str | None = field(default=None, repr=False)
    _lock: Any = field(default_factory=RLock, repr=False)

    @cached_property
    def own_pass(self) -> bool:
        """Is it of Stable Diffusion 1 or 2's kind, for which :mod:`unet_pass` follows the paper step by step?"""
        unet = getattr(self.sd, "unet", None)
        return (
            unet is not None and not hasattr(self.sd, "text_encoder_2") and not unet.config.get("addition_embed_type")
        )

    @property
    def parts(self) -> list[torch.nn.Module]:
        """The pipeline's networks, each once, and CLIP."""
        found = {id(p): p for p in self.sd.components.values() if isinstance(p, torch.nn.Module)}
        return [*found.values(), self.clip]

    @property
    def denoiser(self) -> Any:
        """The UNet or the transformer."""
        return model_of(self.sd)

    @property
    def dtype(self) -> torch.dtype:
        return self.denoiser.dtype

    @property
    def device(self) -> torch.device:
        return self.target or self.sd._execution_device  # diffusers knows where an offloaded network computes

    @property
    def factor(self) -> int:
        """Pixels per latent: 8 for Stable Diffusion."""
        return 2 ** (len(self.sd.vae.config.block_out_channels) - 1)

    @property
    def multiple(self) -> int:
        """The diffusion model's input sides must be multiples of this."""
        return self.factor * 2 ** (len(self.sd.unet.config.block_out_channels) - 1)

    @cached_property
    def scheduler(self) -> Any:
        """The pipeline's noise schedule as DDIM, whatever sampler it came with (SD 1.5 comes with PNDM)."""
        return ddim(self.sd.scheduler)

    @cached_property
    def tokenizer(self) -> Any:
        """The text encoder's tokenizer, of the kind that tells each token's place in the text."""
        return fast_tokenizer(self.sd.tokenizer)

    @cached_property
    def sam(self) -> Any:
        """SAM's mask generator, loaded when first asked for."""
        if self.sam_id is None:
            raise ValueError(
                f'no SAM comes with the preset "{self.name}"; use proposals "felzenszwalb", "self-attention" or '
                '"weak", or the preset "sd15"'
            )
        source = str(hub.fetch(self.sam_id)) if self.sam_id in hub.WEIGHTS else self.sam_id
        start = torch.device("cpu") if self.low_memory else self.device
        return load_sam(source, start, self.dtype)

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Hold the networks for one caller, in evaluation mode; they come back in the modes that they had.

        Small networks compute on one core meanwhile: on a busy machine the threads of a second one would mostly wait
        for each other, and make them many times slower (``benchmarks/bench_threads.py``).
        """
        with self._lock:
            training = [m for part in self.parts for m in part.modules() if m.training]
            for module in training:
                module.training = False
            threads = torch.get_num_threads()
            if self.device.type == "cpu" and self._parameters < SMALL:
                torch.set_num_threads(1)
            try:
                yield
            finally:
                torch.set_num_threads(threads)
                for module in training:
                    module.training = True

    @cached_property
    def _parameters(self) -> int:
        return sum(p.numel() for p in self.denoiser.parameters())

    def check_finite(self, part: str, x: torch.Tensor) -> torch.Tensor:
        """``x`` itself, if all of it are finite numbers; else no order of scores would mean anything.

        Raises:
            ValueError: says which network failed in which precision, and what to try.
        """
        if bool(torch.isfinite(x).all()):
            return x
        raise ValueError(
            f"the {part} gave numbers that are not finite, computing in {str(x.dtype).removeprefix('torch.')} on "
            f"{x.device}: half precision overflows on some GPUs and with some weights. Load the networks in full "
            'precision: RefDiff.from_preset(..., dtype="float32"), or --dtype float32'
        )

    def use(self, part: str) -> Any:
        """A network ("vae", "text_encoder", "unet", "clip" or "sam"), ready on the device.

        In low-memory mode the one used before leaves the device first.
        """
        network = self.clip if part == "clip" else self.sam if part == "sam" else getattr(self.sd, part)
        if self.low_memory and self._resident != part:
            if self._resident is not None:
                self._place(self._resident, torch.device("cpu"))
            self._place(part, self.device)
            self._resident = part
        return network

    def _place(self, part: str, device: torch.device) -> None:
        if part == "sam":
            self.sam.model.to(device)
            self.sam.device = device
        else:
            (self.clip if part == "clip" else getattr(self.sd, part)).to(device)
