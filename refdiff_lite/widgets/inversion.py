"""Through the noise and back: random noise beside DDIM inversion beside its fixed-point repair (lesson 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from ..evaluation.metrics import psnr
from ..inversion import denoise, guided, invert
from ..latents import add_noise, ddim_timesteps, decode
from ..scene import Scene
from ..viz import show_image
from .base import Explorer, picture, view_module

WAYS = ("random", "ddim", "fixed-point")
SIDE = 160
TOP_DB = 60.0
"""Where the curve ends: beyond it no eye sees a difference, and equal pictures have no end."""


@dataclass(frozen=True)
class Journey:
    """One way into the noise and the same deterministic DDIM back.

    Attributes:
        latents: (2 T + 1, C, h, w) float32: x_0, T steps there, T steps back.
        images: (2 T + 1, H, W, 3) uint8, the latents decoded.
        psnr: (2 T + 1,) dB against the VAE's own picture of x_0, so that only the journey is judged.
    """

    latents: np.ndarray
    images: np.ndarray
    psnr: np.ndarray


def collect(scene: Scene, prompt: str = "", steps: int = 10, fixed_point: int = 5) -> dict[str, Journey]:
    """Travel all three ways; the noise of "random" is the first draw of the scene's seed.

    Args:
        prompt: what the UNet is told, there and back. steps: T. fixed_point: repetitions of each repaired step.

    Raises:
        ValueError: fewer than 2 or more than 50 steps.
    """
    if not 2 <= steps <= 50:
        raise ValueError(f"steps={steps}: choose 2 to 50")
    nets, x0 = scene.model.networks, scene.latents
    scheduler = nets.scheduler
    text = scene.model.encode_prompt([prompt])
    denoiser = guided(nets.use("unet"), text)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(scene.config.seed)).to(x0)
    there = {
        "random": [x0, *(add_noise(scheduler, x0, noise, t) for t in ddim_timesteps(scheduler, steps))],
        "ddim": invert(scheduler, denoiser, x0, steps),
        "fixed-point": invert(scheduler, denoiser, x0, steps, fixed_point=fixed_point),
    }
    ways = {way: [*path, *denoise(scheduler, denoiser, path[-1], steps)[1:]] for way, path in there.items()}
    vae = nets.use("vae")  # after the UNet's work is done: in low-memory mode only one network is on the device
    goal, found = decode(vae, x0), {}
    for way, path in ways.items():
        images = np.stack([decode(vae, x) for x in path])
        found[way] = Journey(
            torch.cat(path).float().cpu().numpy(), images, np.array([psnr(image, goal) for image in images])
        )
    return found


def frames(journeys: dict[str, Journey]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the view draws from: per way one strip of pictures, its latents in 256 levels, its curve.

    All latents share one range, centred on zero, so that colours mean the same in every picture.
    """
    span = float(max(np.abs(j.latents).max() for j in journeys.values()))
    arrays: dict[str, np.ndarray] = {}
    size = next(iter(journeys.values())).images.shape[1:3]
    scale = min(1.0, SIDE / max(size))
    side = [max(1, round(n * scale)) for n in size]
    for way, journey in journeys.items():
        count = len(journey.images)
        flat = torch.from_numpy(journey.images).permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(flat, side, mode="bilinear", antialias=True) if scale < 1 else flat
        strip = small.permute(2, 0, 3, 1).reshape(side[0], count * side[1], 3).round().byte().numpy()
        arrays[f"{way}/strip"] = picture(strip, side=10**5, quality=85)
        arrays[f"{way}/latents"] = np.round((journey.latents / span + 1) / 2 * 255).astype(np.uint8)
        arrays[f"{way}/psnr"] = np.minimum(journey.psnr, TOP_DB).astype(np.float32)
    return {"size": side, "span": span, "top": TOP_DB}, arrays


class InversionExplorer(Explorer):
    """Slide through the noise and back: which way of making noise keeps the picture?

    Attributes:
        step: 0 is x_0, T the noise, 2 T the way's end, where it opens: at x_0 all ways are alike.
        latents: show the latents instead of the decoded pictures.
    """

    _esm = view_module("keep", "inversion")
    step = traitlets.Int(0, min=0).tag(sync=True)
    latents = traitlets.Bool(False).tag(sync=True)

    def __init__(self, journeys: dict[str, Journey], timesteps: list[int], **choices: Any) -> None:
        """Show journeys of :func:`collect`; :meth:`from_scene` is the short way."""
        self.journeys, self.timesteps = journeys, [0, *timesteps, *timesteps[-2::-1], 0]
        super().__init__()
        meta, arrays = frames(journeys)
        title = "Through the noise and back"
        self.show({**meta, "title": title, "ways": list(journeys), "timesteps": self.timesteps}, arrays)
        self.choose(**{"step": len(self.timesteps) - 1} | choices)

    @classmethod
    def from_scene(
        cls, scene: Scene, prompt: str = "", steps: int = 10, fixed_point: int = 5, **choices: Any
    ) -> InversionExplorer:
        """Travel all three ways with an image; see :func:`collect`."""
        times = ddim_timesteps(scene.model.networks.scheduler, steps)
        return cls(collect(scene, prompt, steps, fixed_point), times, **choices)

    @traitlets.validate("step")
    def _on_the_way(self, proposal: Any) -> int:
        if proposal["value"] >= len(self.timesteps):
            raise traitlets.TraitError(f"step={proposal['value']}: the way has {len(self.timesteps)} steps, from 0")
        return proposal["value"]

    def figure(self) -> Figure:
        middle = len(self.timesteps) // 2
        figure = Figure(figsize=(6.6, 2.25 * len(self.journeys)), dpi=90, layout="constrained")
        axes = figure.subplots(len(self.journeys), 3, squeeze=False)
        for row, (way, journey) in zip(axes, self.journeys.items(), strict=True):
            for ax, step, name in zip(
                row, (0, middle, -1), (way, "noise", f"back, {journey.psnr[-1]:.0f} dB"), strict=True
            ):
                show_image(journey.images[step], ax, name)
        return figure

    def __repr__(self) -> str:
        ends = ", ".join(f"{way} {j.psnr[-1]:.0f} dB" for way, j in self.journeys.items())
        return f"InversionExplorer({len(self.timesteps) // 2} steps there and back: {ends})"
