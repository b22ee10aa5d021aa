"""What the page knows beside the networks: word lists, vocabulary, constants, noise, and a few scenes."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import ftfy
import numpy as np
import regex
import torch
from PIL import Image

from .. import expression, grammar
from ..config import PAPER_VARIANTS, RefDiffConfig
from ..datasets.toyref import STYLES, load_toyref
from ..latents import alpha_bar, ddim_timesteps
from ..networks import Networks
from ..widgets.answers import DIRECTIONS
from ..widgets.base import bits, palette

SCENES = (72, 23, 36, 4, 66, 24, 57, 48)
"""Images of ToyRef's test split that the page offers, by their place: chosen by what they show, not by how they fare."""
_WORD = r"\p{L}\p{M}\p{N}_"


def _javascript(pattern: str) -> str:
    """A pattern of Python's ``regex`` for JavaScript, whose letters, digits and word boundaries are ASCII's."""
    told = pattern.replace(r"\d", r"\p{Nd}").replace(r"\W", f"[^{_WORD}]").replace(r"\b", f"(?![{_WORD}])")
    return told.replace(r"\s", r"[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


def lists() -> dict[str, Any]:
    """The rule's word lists and patterns (:mod:`refdiff_lite.grammar`), for ``web/grammar.js``."""
    g = grammar
    return {
        "cues": g.CUES, "colours": g._COLOURS, "numbers": list(g.NUMBERS), "kinds": g._KINDS,
        "endings": [[kind, _javascript(p.pattern)] for kind, p in g._ENDINGS],
        "asking": _javascript(g._ASKING.pattern), "mark": _javascript(g._BREAK.pattern), "word": _javascript(g._WORD.pattern),
        "image": g.IMAGE, "body": g._BODY, "owners": g._OWNERS, "heading": g._HEADING, "clothes": g._CLOTHES,
        "byRight": g._BY_RIGHT, "longest": expression._MAX,
    }  # fmt: skip


def mended() -> dict[str, str]:
    """Characters that open_clip has ftfy replace before CLIP's tokenizer reads a text, each with what stands there instead.

    What ftfy makes of several together, as of UTF-8 that was read as Latin-1, is not among it.
    """
    steps = (
        ftfy.fixes.fix_c1_controls, ftfy.fixes.fix_latin_ligatures, ftfy.fixes.fix_character_width,
        ftfy.fixes.uncurl_quotes, ftfy.fixes.remove_control_chars,
    )  # fmt: skip
    found = {}
    for c in map(chr, (*range(0xD800), *range(0xE000, 0x10000))):
        mend = c
        for step in steps:
            mend = step(mend)
        if mend != c:
            found[c] = mend
    return found


def tokenizer(networks: Networks) -> dict[str, Any]:
    """Vocabulary and merges of the one tokenizer that both text encoders share, for ``web/tokens.js``."""
    told = json.loads(networks.tokenizer.backend_tokenizer.to_str())
    if told["model"] != json.loads(networks.clip_tokenizer.tokenizer.backend_tokenizer.to_str())["model"]:
        raise ValueError("the page has one tokenizer, but the diffusion model's and CLIP's differ")
    return {
        "vocabulary": told["model"]["vocab"], "merges": told["model"]["merges"],
        "context": networks.tokenizer.model_max_length,
        "mended": mended(), "start": networks.tokenizer.bos_token, "end": networks.tokenizer.eos_token,
    }  # fmt: skip


def constants(networks: Networks, config: RefDiffConfig, layers: list[list[str]]) -> dict[str, Any]:
    """What the stages in ``web/stages.js`` take from the config and the networks.

    Raises:
        ValueError: the config asks for what the page cannot do.
    """
    able = RefDiffConfig.toy()
    fields = (
        "side_factor pad noise draws guidance scores normalise upsample propagate prompt_suffix weak_choice keep_largest min_area "
        "crop_resize masked_patches positions positional_bias axes"
    )
    for name in fields.split():
        if getattr(config, name) != getattr(able, name):
            raise ValueError(f"the page can only do {name}={getattr(able, name)!r}, as the preset toy has it")
    times = ddim_timesteps(networks.scheduler, config.num_steps)
    grid = networks.side // 8
    noise = torch.randn((1, 4, grid, grid), generator=torch.Generator().manual_seed(config.seed))
    return {
        "side": networks.side, "grids": [grid // 2, grid], "layers": layers,
        "read": [name for names in layers for name in names if regex.search(config.layers or "", name)],
        "timesteps": times, "alphas": [alpha_bar(networks.scheduler, t) for t in times], "step": config.noise_step,
        "noise": base64.b64encode(noise.numpy().tobytes()).decode(), "thresholds": config.thresholds,
        "ramp": config.ramp, "nounInCrop": config.noun_in_crop, "nounInMasked": config.noun_in_masked,
        "alpha": config.weight_g / (config.weight_g + config.weight_d), "beta": config.beta,
        "clip": {
            "side": networks.use("clip").visual.image_size[0], "patch": networks.use("clip").visual.patch_size[0],
            "mean": networks.clip_mean.tolist(), "std": networks.clip_std.tolist(),
        },
        "felzenszwalb": {"scale": 5, "edge": 9, "minArea": 0.004},
        "directions": list(DIRECTIONS), "variants": list(PAPER_VARIANTS), "palette": base64.b64encode(palette().tobytes()).decode(),
    }  # fmt: skip


def scenes() -> list[dict[str, Any]]:
    """A few scenes of ToyRef's test split with their true masks, and a sentence for each thing, in turn of each style."""
    found = []
    samples = load_toyref("test")
    for place in SCENES:
        sample = samples[place]
        chosen = []
        for thing in range(len(sample.masks)):
            told = {r.style: r for r in sample.records if r.target == thing}
            order = [STYLES[1:][(thing + k) % 3] for k in range(3)]
            chosen.append(next(told[style] for style in (*order, STYLES[0]) if style in told))
        buffer = io.BytesIO()
        Image.fromarray(sample.image()).save(buffer, "PNG")  # the very pixels, whatever decodes them
        found.append(
            {
                "name": f"ToyRef {sample.image_id}",
                "picture": base64.b64encode(buffer.getvalue()).decode(),
                "masks": [base64.b64encode(m.tobytes()).decode() for m in bits(np.asarray(sample.masks, bool))],
                "sentences": [{"text": r.text, "target": r.target} for r in chosen],
            }
        )
    return found
