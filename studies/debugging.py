"""What goes wrong when the toy networks paint, and do their maps tell? ``python -m studies.debugging`` (lesson 11).

A hundred prompts of two things, and a hundred of two things with a colour each; a seed for every prompt. Whether a thing is in
the picture is CLIP's judgement: is one of Felzenszwalb's proposals named so, of all 45 names? Colours are judged by the mean
colour of that proposal. The maps are those of the layers that Ref-Diff reads; nothing was chosen after looking.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
import torch
import typer
from skimage.color import rgb2hsv
from tqdm.auto import tqdm

from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.files import data_dir, write_text
from refdiff_lite.images import load_image
from refdiff_lite.networks import PRESETS, clip
from refdiff_lite.pipeline import RefDiff
from refdiff_lite.ranking import visual_features
from refdiff_lite.record import Record
from refdiff_lite.toy.scenes import TINTS, categories
from refdiff_lite.trace import trace

STEPS, GUIDANCE, EARLY = 20, 5.0, 5


def paint(model: RefDiff, prompt: str, seed: int, **which: Any) -> Record:
    """A traced generation, 128 × 128 pixels."""
    with model.networks.at_work(), trace(model.networks.sd, PRESETS["toy"].layers, **which) as record:
        model.networks.sd(
            prompt, num_inference_steps=STEPS, guidance_scale=GUIDANCE, height=128, width=128,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
    return record


def a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def named(model: RefDiff, image: np.ndarray) -> dict[str, torch.Tensor]:
    """What CLIP sees in a picture: a name for each proposal, with the mask of the last one of that name."""
    scene, nets = model.set_image(image), model.networks
    found = scene.proposals("felzenszwalb")
    if not len(found):
        return {}
    kinds = list(categories())
    said = torch.cat([clip.encode_text(nets.clip, nets.clip_tokenizer, a(k), a(k))[:1] for k in kinds])
    chosen = (visual_features(nets, found, "crop", (), model.config) @ said.T).argmax(1).tolist()
    return {kinds[i]: mask for i, mask in zip(chosen, found.masks, strict=True)}


def nearest_tint(image: np.ndarray, mask: torch.Tensor, tints: tuple[str, str]) -> str:
    """Which of two tints the mean colour of a mask is closer to, by its hue."""
    hue = rgb2hsv(image[mask.numpy()].mean(0)[None, None] / 255)[0, 0, 0]
    return min(tints, key=lambda t: abs((hue - TINTS[t] + 0.5) % 1 - 0.5))


def judge(model: RefDiff, scenes: int = 40) -> list[dict[str, Any]]:
    """The judge on scenes whose things are known: which of them does it find?"""
    rows = []
    for sample in load_toyref("val", limit=scenes):
        seen = named(model, load_image(sample.path))
        rows += [{"image": sample.image_id, "noun": n, "there": n in seen} for n in sorted(set(sample.categories))]
    return rows


def main(prompts: Annotated[int, typer.Option(help="Of each kind.")] = 100) -> None:
    """Paint, judge, and write ``data/models/toy/debugging.json``."""
    model, rng = RefDiff.from_preset("toy"), np.random.default_rng(0)
    kinds, tints = list(categories()), list(TINTS)
    things: list[dict[str, Any]] = []
    colours: list[dict[str, Any]] = []
    for seed in tqdm(range(prompts), "missing things"):
        pair = [str(kinds[i]) for i in rng.choice(len(kinds), 2, replace=False)]
        record = paint(model, f"{a(pair[0])} and {a(pair[1])}", seed, steps="each")
        seen = named(model, record.images[0])
        for noun in pair:
            peaks = [float(record.scores_of(noun, step=s).max()) for s in record.steps]
            things.append({"prompt": f"{a(pair[0])} and {a(pair[1])}", "seed": seed, "noun": noun, "there": noun in seen,
                           "early": round(float(np.mean(peaks[:EARLY])), 5), "all": round(float(np.mean(peaks)), 5)})  # fmt: skip
    for seed in tqdm(range(prompts), "colours"):
        pair = [str(kinds[i]) for i in rng.choice(len(kinds), 2, replace=False)]
        first, second = (str(tints[i]) for i in rng.choice(len(tints), 2, replace=False))
        two = first, second
        prompt = f"a {two[0]} {pair[0]} and a {two[1]} {pair[1]}"
        record = paint(model, prompt, seed)
        maps = {w: record.scores_of(w).ravel() for w in (*pair, *two)}
        seen = named(model, record.images[0])
        for i, noun in enumerate(pair):
            own, other = (float(np.corrcoef(maps[two[i]], maps[n])[0, 1]) for n in (noun, pair[1 - i]))
            tint = nearest_tint(record.images[0], seen[noun], two) if noun in seen else None
            colours.append({"prompt": prompt, "seed": seed, "noun": noun, "asked": two[i], "other": two[1 - i], "seen": tint,
                            "own": round(own, 4), "leak": round(other, 4)})  # fmt: skip
    write_text(
        data_dir() / "models" / "toy" / "debugging.json",
        json.dumps({"things": things, "colours": colours, "judge": judge(model)}, indent=0) + "\n",
    )
    print(f"{np.mean([r['there'] for r in things]):.2f} of things there")


if __name__ == "__main__":
    typer.run(main)
