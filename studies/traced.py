"""Does a traced map lie on its thing? ``python -m studies.traced``: pictures of two things, painted by the toy networks.

The layout must be known, so each generation begins with a scene whose sprites we pasted, noised a long way: at strength 0.6 it
is painted anew from 60 % of the way to noise. The maps are the trace's mean over all steps, of the layers that the toy preset
reads. A noun is right if its map's score (S_G) is higher on its own thing than on the other; chance is one half.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from tqdm.auto import tqdm

from refdiff_lite.evaluation.metrics import bootstrap
from refdiff_lite.fusion import generative_score
from refdiff_lite.networks import PRESETS, load
from refdiff_lite.toy.scenes import ToyScene, make_scene
from refdiff_lite.trace import trace

STRENGTHS = (0.4, 0.6, 0.8)
STEPS = 20


def scenes_of_two() -> Iterator[ToyScene]:
    """Endless test scenes with two things of different categories."""
    return (
        s for s in (make_scene("test", i) for i in count()) if len({t.category for t in s.things}) == 2 == len(s.things)
    )


def painted(pipe: Any, scene: ToyScene, strength: float, seed: int) -> list[bool]:
    """Whether each of the two nouns' maps picks its own thing, in a picture painted over the scene."""
    nouns = [t.category for t in scene.things]
    with trace(pipe, PRESETS["toy"].layers) as record:
        pipe(
            f"a {nouns[0]} and a {nouns[1]}", image=Image.fromarray(scene.image), strength=strength,
            num_inference_steps=STEPS, guidance_scale=3.0, generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
    masks = torch.from_numpy(scene.masks)
    maps = [torch.from_numpy(record.word_map(n, pieces="last")) for n in nouns]
    return [int(generative_score(c, masks).argmax()) == i for i, c in enumerate(maps)]


def main(pictures: Annotated[int, typer.Option(help="Prompts at each strength.")] = 100) -> None:
    """Print the share of nouns whose traced map lies on its thing, with 95 % intervals by picture."""
    from diffusers import StableDiffusionImg2ImgPipeline

    parts = {k: v for k, v in load("toy").sd.components.items() if k != "image_encoder"}
    pipe = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    scenes = list(islice(scenes_of_two(), pictures))
    print(f"| strength | nouns on their thing, of {2 * pictures} (chance 0.50) |\n|---|---|")
    for strength in STRENGTHS:
        hits = [painted(pipe, s, strength, i) for i, s in enumerate(tqdm(scenes, leave=False))]
        low, high = bootstrap(np.mean(hits, 1), range(len(hits)))
        print(f"| {strength} | {np.mean(hits):.2f} ({low:.2f}–{high:.2f}) |", flush=True)


if __name__ == "__main__":
    typer.run(main)
