"""Train the toy UNet: denoise 16×16×4 latents under a caption, with the VAE frozen.

Unlike SD's, the text encoder learns along: it starts as CLIP's text tower, whose words say what a picture shows, and
comes to say where. With CLIP's tower frozen the words' maps stayed poor (``data/models/toy/README.md``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from ..attention import record_attention, word_map
from ..expression import token_positions
from ..fusion import generative_score
from .phrases import Phrase, caption, names_one
from .scenes import Thing, ToyScene, make_scene
from .train_clip import tokens
from .train_vae import encode_all
from .training import LOOKED_AT, load_scenes, to_tensor, train

BATCH = 32
EMPTY = 0.1
"""Share of captions replaced by the empty one, so that classifier-free guidance works."""
NOUN, SINGLE = 0.25, 0.2
"""Shares of captions that are only the noun of one thing, and that say more of one thing, as referring expressions do."""
TINTS, RECOLOURED, SHOWN_BELOW = 0.4, 0.5, 600
"""How often a caption says a tint; the share of recoloured pictures; the timestep from which on there are none of them.

Noise hides shapes before it hides colours, so a noun binds to the usual colour of its kind unless colours often mislead.
"""


def make_unet(text_width: int = 128) -> UNet2DConditionModel:
    """Cross-attention at 16×16 and 8×8; 4 heads (diffusers' ``attention_head_dim`` is their number here)."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(48, 96),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=text_width,
        norm_num_groups=8,
    ).to(memory_format=torch.channels_last)


def make_scheduler() -> DDIMScheduler:
    """The schedule of Stable Diffusion 1.5."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def pipeline(
    vae: AutoencoderKL, unet: UNet2DConditionModel, text: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """The four parts as an ordinary Stable Diffusion pipeline."""
    return StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text,
        tokenizer=tokenizer,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def say(things: tuple[Thing, ...], rng: np.random.Generator, tints: float) -> str:
    """What the UNet is told of a scene: nothing, a bare noun (of a tinted thing if there is one), or a :func:`caption`."""
    kind = rng.uniform()
    if kind < EMPTY:
        return ""
    if kind < EMPTY + NOUN:
        return str(rng.choice([thing.category for thing in [t for t in things if t.tint] or things]))
    one = kind < EMPTY + NOUN + SINGLE
    return caption((things[rng.integers(len(things))],) if one else things, rng, tints=tints)


def recolour(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(B, H, W, 3) uint8 -> the same pictures, each with its hues turned by 60° to 300° and its saturation changed."""
    turned = np.empty_like(images)
    for i, image in enumerate(images):
        hsv = np.asarray(Image.fromarray(image).convert("HSV")).copy()
        hsv[..., 0] += np.uint8(rng.integers(43, 214))  # a turn is 256, and wraps around
        hsv[..., 1] = (hsv[..., 1] * rng.uniform(0, 1.2)).clip(0, 255)
        turned[i] = Image.merge("HSV", [Image.fromarray(band) for band in np.moveaxis(hsv, -1, 0)]).convert("RGB")
    return turned


@torch.no_grad()
def localisation(
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scenes: list[ToyScene],
) -> dict[str, float]:
    """Share of nouns whose map, the mean over all layers at t = 51, picks the named thing among the true masks.

    ``localisation`` is of all nouns, ``tinted`` of those of tinted things. Only for the log: masks of val scenes, no training scene, and nothing learns from them.
    """
    hits, tinted, generator = [], [], torch.Generator().manual_seed(0)
    for scene in scenes:
        x0 = vae.encode(to_tensor(scene.image[None])).latent_dist.mode() * vae.config.scaling_factor
        t = torch.tensor(51)
        x = make_scheduler().add_noise(x0, torch.randn(x0.shape, generator=generator), t)
        masks = torch.from_numpy(scene.masks)
        for i, thing in enumerate(scene.things):
            if not names_one(Phrase(thing.category), scene.things, i):
                continue
            with record_attention(unet) as maps:
                unet(x, t, text(tokens(tokenizer, [thing.category])).last_hidden_state)
            where = token_positions(tokenizer, thing.category, (0, len(thing.category)))
            hits.append(int(generative_score(word_map(maps, where, scene.image.shape[:2]), masks).argmax()) == i)
            tinted.append(thing.tint is not None)
    return {"localisation": float(np.mean(hits)), "tinted": float(np.mean(np.asarray(hits)[tinted]))}


def train_unet(
    work: Path,
    vae: AutoencoderKL,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    *,
    steps: int = 17_200,
    scenes: int = 20_000,
    stop_at: int | None = None,
    lr: float = 1.5e-3,
) -> UNet2DConditionModel:
    """Train ``text`` in place and a new UNet, or go on training, in ``work/unet``; both end with averaged weights.

    ``work/unet/snapshots`` keeps the weights of every doubling of steps, to show how attention emerges.
    """
    torch.manual_seed(0)
    images, things = load_scenes(work / "scenes", "train", scenes)
    latents = encode_all(vae, images, work / f"latents-{scenes}.pt")
    rng = np.random.default_rng(0)
    recoloured = encode_all(vae, images, work / f"latents-{scenes}-recoloured.pt", lambda x: recolour(x, rng))
    scheduler, unet = make_scheduler(), make_unet(text.config.hidden_size)
    both = torch.nn.ModuleDict({"unet": unet, "text": text.requires_grad_(True)})
    held = min(64, max(1, len(latents) // 100))  # the last ones are only looked at, for the log
    share = np.array([1.0 + sum(t.tint is not None for t in th) for th in things[: len(latents) - held]])
    share /= share.sum()  # scenes with tinted things come more often
    looked_at = [make_scene("val", i) for i in range(LOOKED_AT)]

    def errors(x: torch.Tensor, texts: list[str], t: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Squared error of the predicted noise, one number per sample."""
        noise = torch.randn(x.shape, generator=generator)
        guess = unet(scheduler.add_noise(x, noise, t), t, text(tokens(tokenizer, texts)).last_hidden_state).sample
        return (guess - noise).square().mean((1, 2, 3))

    def loss(generator: torch.Generator, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = rng.choice(len(share), BATCH, p=share)
        # Two thirds of the steps where the caption matters most: below, pixels tell; above, all is noise.
        t = np.where(rng.uniform(size=BATCH) < 0.6, rng.integers(200, 850, BATCH), rng.integers(0, 1000, BATCH))
        turned = (rng.uniform(size=BATCH) < RECOLOURED) & (t < SHOWN_BELOW)
        texts = [say(things[i], rng, 0.0 if no_colour else TINTS) for i, no_colour in zip(rows, turned, strict=True)]
        x = torch.where(torch.from_numpy(turned)[:, None, None, None], recoloured[rows], latents[rows])
        return errors(x, texts, torch.from_numpy(t), generator).mean(), {}

    @torch.no_grad()
    def report(model: torch.nn.Module) -> dict[str, float]:
        """Gain of the right caption over another scene's, as a share of the loss, by t; and where nouns look."""
        row, rng = {}, np.random.default_rng(0)
        texts = [caption(th, rng, everything=1.0) for th in things[-held:]]
        for t in (100, 300, 500, 700, 900):
            args = latents[-held:], torch.full((held,), t)
            right = errors(args[0], texts, args[1], torch.Generator().manual_seed(0)).mean()
            wrong = errors(args[0], texts[1:] + texts[:1], args[1], torch.Generator().manual_seed(0)).mean()
            row[f"gain_{t}"] = (1 - right / wrong).item()
        return row | localisation(vae, unet, text, tokenizer, looked_at)

    for step in train(
        both, loss, work / "unet", steps=steps, lr=lr, stop_at=stop_at, every=250, report=report, muon=5e-3
    ):
        if step % 250 == 0 and (step // 250).bit_count() == 1:  # 250, 500, 1000, …
            (work / "unet" / "snapshots").mkdir(exist_ok=True)
            weights = {k: p.half().contiguous() for k, p in both.named_parameters()}
            save_file(weights, work / "unet" / "snapshots" / f"{step}.safetensors")
    return unet
