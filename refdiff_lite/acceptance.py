"""Does every stage work on this machine, with these weights? ``refdiff-lite check``: a line for each, and what to do.

What is expected of the toy networks was measured (``python -m studies.acceptance``, ``data/models/toy/acceptance.json``). What
is expected of Stable Diffusion 1.5 comes from theory and from the literature, and says so: we have not seen it run yet.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .attention import record_attention, resize
from .config import PAPER_VARIANTS
from .datasets import Sample
from .datasets.photos import load_photos
from .datasets.toyref import load_toyref
from .evaluation.metrics import iou, psnr
from .expression import parse
from .files import data_dir, write_text
from .inversion import denoise, guided, invert
from .latents import ddim_timesteps, decode, encode
from .networks import PRESETS, clip, device_and_dtype, hub
from .networks.compat import versions
from .pipeline import RefDiff

THEORY, UNSEEN = "by construction", "not yet seen by us"


@dataclass
class Line:
    """One stage's finding."""

    stage: str
    found: str
    expected: str
    ok: bool
    todo: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        told = f"{'✓' if self.ok else '✗'} {self.stage:21} {self.found}"
        return told if self.ok else f"{told}\n  expected: {self.expected}\n  to do: {self.todo}"


@dataclass
class Bench:
    """Networks, pictures and expectations that the stages share."""

    model: RefDiff
    samples: list[Sample]
    expected: dict[str, float]
    source: str
    left: dict[str, Any] = field(default_factory=dict)

    @property
    def nets(self) -> Any:
        return self.model.networks

    @cached_property
    def scenes(self) -> list[Any]:
        return [self.model.set_image(s.image(), oracle=s.masks) for s in self.samples]

    @property
    def toy(self) -> bool:
        return self.nets.name == "toy"

    def at_least(self, name: str, value: float, unit: str, todo: str, scale: float = 1) -> tuple[str, str, bool, str]:
        """A finding that must not fall below what is expected of it."""
        least = self.expected[name]
        return (
            f"{scale * value:.4g}{unit}",
            f"at least {scale * least:.4g}{unit} ({self.source})",
            bool(value >= least),
            todo,
        )


Finding = tuple[str, str, bool, str]
STAGES: dict[str, Callable[[Bench], Finding]] = {}


def stage(function: Callable[[Bench], Finding]) -> Callable[[Bench], Finding]:
    """Add a stage to the check, under the function's name."""
    STAGES[getattr(function, "__name__").replace("_", " ")] = function  # noqa: B009 (a callable need not have one)
    return function


@stage
def files(bench: Bench) -> Finding:
    """Every file of the weights has its checksum."""
    if bench.toy:
        folder = data_dir() / "models" / "toy"
        known = json.loads((folder / "acceptance.json").read_text())["sha256"]
        wrong = [name for name, digest in known.items() if checksum(folder / name) != digest]
        return _files(len(known), wrong, "install refdiff-lite again")
    names = [n for n in (PRESETS["sd15"].sd, PRESETS["sd15"].clip, bench.nets.sam_id) if n in hub.WEIGHTS]
    count, wrong = 0, []
    for weights in (hub.WEIGHTS[n] for n in names):
        there = weights.cached()
        count += len(weights.files)
        wrong += [f for f in weights.files if f in weights.missing() or not hub.has_its_checksum(there[f])]
    return _files(count, wrong, f"run `{hub.command(names)}`")


def _files(count: int, wrong: list[str], todo: str) -> Finding:
    found = f"{count - len(wrong)} of {count} files whole" + (f", not {wrong[0]}" if wrong else "")
    return found, "each with the SHA-256 that it was published with", not wrong, todo


def checksum(path: Path) -> str:
    """SHA-256 of a file, "" where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@stage
def device_and_precision(bench: Bench) -> Finding:
    """Every network is on one device, in one precision."""
    nets, (device, _) = bench.nets, device_and_dtype()
    parts = {"vae": nets.sd.vae, "text encoder": nets.sd.text_encoder, "unet": nets.sd.unet, "clip": nets.clip}
    kinds = {name: {str(p.dtype).removeprefix("torch.") for p in part.parameters()} for name, part in parts.items()}
    mixed = [name for name, found in kinds.items() if found != {str(nets.dtype).removeprefix("torch.")}]
    places = {p.device.type for part in parts.values() for p in part.parameters()}
    ok = not mixed and (places == {device.type} or nets.low_memory)
    found = f"{', '.join(sorted(places))} in {' and '.join(sorted(set().union(*kinds.values())))}"
    return (
        found,
        f"all on {device.type} in one precision ({THEORY})",
        ok,
        "load the networks again, by RefDiff.from_preset",
    )


@stage
def vae(bench: Bench) -> Finding:
    """A picture through the VAE and back."""
    values = []
    for sample in bench.samples[:4]:
        image = _fit(sample.image(), bench.nets)
        values.append(psnr(decode(bench.nets.use("vae"), encode(bench.nets.use("vae"), image, image.shape[:2])), image))
    return bench.at_least(
        "vae", float(np.mean(values)), " dB PSNR", "try --dtype float32; else the VAE's weights are wrong"
    )


def _fit(image: np.ndarray, nets: Any) -> np.ndarray:
    """A picture cut to what the diffusion model takes, its longer side the trained one."""
    from PIL import Image

    scale = nets.side / max(image.shape[:2])
    height, width = (nets.multiple * max(1, round(n * scale / nets.multiple)) for n in image.shape[:2])
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


@stage
def text_encoder(bench: Bench) -> Finding:
    """Its last layer, normalised, for every token, with the padding that it was trained with."""
    nets = bench.nets
    length = nets.tokenizer.model_max_length
    states = bench.model.encode_prompt(["a cat", ""])[0].float()
    ids = nets.tokenizer("a cat", padding="max_length", max_length=length).input_ids
    encoder = nets.sd.text_encoder
    norm = getattr(encoder, "text_model", encoder).final_layer_norm
    inside = (states.cpu() - norm.bias.float().cpu()) / norm.weight.float().cpu()
    spread = inside.std(-1, correction=0)  # 1 for every token, if the norm was the last thing that happened to it
    ok = states.shape == (length, encoder.config.hidden_size)
    ok = ok and set(ids[4:]) == {nets.tokenizer.pad_token_id} and bool(((spread - 1).abs() < 0.05).all())
    found = f"{states.shape[0]} × {states.shape[1]}, padded with {ids[-1]}, normalised to {spread.mean():.2f}"
    expected = f"{length} tokens, each normalised to 1 by the last layer norm ({THEORY})"
    return found, expected, ok, "the tokenizer or the text encoder is not Stable Diffusion's: fetch the weights again"


@stage
def scheduler(bench: Bench) -> Finding:
    """DDIM's timesteps, whatever sampler the weights came with."""
    times = ddim_timesteps(bench.nets.scheduler, 20)
    stride = bench.nets.scheduler.config.num_train_timesteps // 20
    expected = [1 + stride * i for i in range(20)]
    found = f"{times[0]}, {times[1]}, …, {times[-1]}"
    told = f"1, {1 + stride}, …, {expected[-1]} (steps_offset 1, leading; the official code's)"
    return found, told, times == expected, "scheduler/scheduler_config.json was changed: fetch it again"


@stage
def painting(bench: Bench) -> Finding:
    """A sample that CLIP names right."""
    kinds = ["apple", "bus", "cat", "tree"] if bench.toy else ["cat", "dog", "car", "tree", "house", "apple"]
    prompt, size = "a {}" if bench.toy else "a photograph of a {}", bench.nets.side
    right = []
    for seed, kind in enumerate(kinds if bench.toy else kinds[:2]):
        with bench.nets.at_work():
            image = bench.nets.sd(
                prompt.format(kind), num_inference_steps=20, guidance_scale=5.0 if bench.toy else 7.5, height=size, width=size,
                generator=torch.Generator().manual_seed(seed),
            ).images[0]  # fmt: skip
        right.append(_label(bench, np.array(image), [prompt.format(k) for k in kinds]) == prompt.format(kind))
    return bench.at_least(
        "painting", float(np.mean(right)), " % named right", "the UNet or the scheduler is wrong", 100
    )


def _label(bench: Bench, image: np.ndarray, texts: list[str]) -> str:
    """CLIP's choice among texts."""
    nets = bench.nets
    pixels = torch.from_numpy(_square(image, nets.clip.visual.image_size[0])).permute(2, 0, 1).float() / 255
    with nets.at_work():
        seen = clip.encode_images(nets.use("clip"), [pixels], nets.clip_mean, nets.clip_std)[0]
        said = torch.stack([clip.encode_text(nets.use("clip"), nets.clip_tokenizer, t, t)[0] for t in texts])
    return texts[int((said.float() @ seen.float()).argmax())]


def _square(image: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    return np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


@stage
def clip_labels(bench: Bench) -> Finding:
    """CLIP's name for what is to be seen, among all names."""
    if bench.toy:  # of every thing, cut out by its true mask
        names = sorted({c for s in bench.samples for c in s.categories} | {"house", "bus", "guitar", "penguin", "boat"})
        right = []
        for scene, sample in zip(bench.scenes, bench.samples, strict=True):
            masks = torch.from_numpy(sample.masks)
            for mask, name in zip(masks, sample.categories, strict=True):
                rows, columns = (mask.any(d).nonzero().flatten() for d in (1, 0))
                box = np.s_[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
                right.append(
                    _label(bench, (scene.image * mask.numpy()[..., None])[box], [f"a {n}" for n in names])
                    == f"a {name}"
                )
    else:
        texts = [f"a photograph of {what}" for what in PHOTOGRAPHS.values()]
        labels = {s.path.stem: _label(bench, s.image(), texts) for s in bench.samples}
        right = [labels[name] == f"a photograph of {PHOTOGRAPHS[name]}" for name in labels]
    return bench.at_least(
        "clip labels", float(np.mean(right)), " % right", "CLIP's weights or its preprocessing are wrong", 100
    )


PHOTOGRAPHS = {
    "astronaut": "an astronaut", "coffee": "a cup of coffee", "chelsea": "a cat", "rocket": "a rocket", "china": "a pagoda",
    "hopper": "an old woman in uniform", "flower": "a flower", "camera": "a man with a camera",
}  # fmt: skip


@stage
def word_maps(bench: Bench) -> Finding:
    """Attention mass of a head word within its thing, over the thing's share of the picture."""
    ratios = []
    for scene, sample in zip(bench.scenes, bench.samples, strict=True):
        for record in sample.records[:4]:
            c, mask = scene.word_map(parse(record.text)), torch.from_numpy(sample.masks[record.target])
            mask = resize(mask[None].float(), c.shape)[0] > 0.5
            ratios.append(float(c[mask].sum() / c.sum().clamp_min(1e-9) / mask.float().mean().clamp_min(1e-9)))
    return bench.at_least(
        "word maps", float(np.median(ratios)), " times its area", "the attention is not the prompt's: report this"
    )


@stage
def self_attention(bench: Bench) -> Finding:
    """What a thing's pixels give to their own thing, over the thing's share of the picture."""
    ratios = []
    for scene, sample in zip(bench.scenes, bench.samples, strict=True):
        unet, t = bench.nets.use("unet"), scene.timesteps[bench.model.config.noise_step]
        with torch.no_grad(), bench.nets.at_work(), record_attention(unet, bench.nets.self_layers, "self") as record:
            unet(scene.noised[0], t, bench.model.encode_prompt([""]))
        maps = max((m[0].float().cpu() for m in record.maps.values()), key=lambda m: m.shape[0])
        for mask in sample.masks:
            inside = resize(torch.from_numpy(mask)[None].float(), (maps.shape[0], maps.shape[1]))[0] > 0.5
            if inside.any():
                ratios.append(float(maps[inside][:, inside.flatten()].sum(1).mean() / inside.float().mean()))
    return bench.at_least(
        "self attention", float(np.median(ratios)), " times its area", "the self-attention is wrong: report this"
    )


@stage
def ddim_inversion(bench: Bench) -> Finding:
    """There and back, plainly and with the fixed-point repair."""
    nets, scene, values = bench.nets, bench.scenes[0], []
    with nets.at_work():
        image = decode(nets.use("vae"), scene.latents)
        step = guided(nets.use("unet"), bench.model.empty_prompt)
        for repeats in (0, 3):
            noise = invert(nets.scheduler, step, scene.latents, 20, until=10, fixed_point=repeats)[-1]
            back = denoise(nets.scheduler, step, noise, 20, start=10)[-1]
            values.append(psnr(decode(nets.use("vae"), back), image))
    plain, repaired = values
    found, expected, ok, todo = bench.at_least("inversion", repaired, " dB repaired", "try --dtype float32")
    return f"{found}, {plain:.4g} dB plain", f"{expected}, and no worse than plain", ok and repaired > plain - 0.5, todo


@stage
def proposals(bench: Bench) -> Finding:
    """The best proposal for each thing."""
    kind = "felzenszwalb" if bench.toy else "sam"
    best = []
    for scene, sample in zip(bench.scenes, bench.samples, strict=True):
        masks = [scene.to_full(m) for m in scene.proposals(kind).masks]
        best += [max((iou(m, truth) for m in masks), default=0.0) for truth in sample.masks]
    return bench.at_least(
        "proposals", float(np.mean(best)), f" % mean best IoU of {kind}", "SAM's weights are wrong", 100
    )


@stage
def variants(bench: Bench) -> Finding:
    """All four variants, with the true masks as proposals but for g."""
    found: dict[str, list[float]] = {v: [] for v in PAPER_VARIANTS}
    for scene, sample in zip(bench.scenes, bench.samples, strict=True):
        for record in sample.records:
            for variant in PAPER_VARIANTS:
                found[variant].append(iou(scene.segment(record.text, variant).mask, sample.masks[record.target]))
    means = {v: float(np.mean(x)) for v, x in found.items()}
    low = [v for v in means if means[v] < bench.expected[f"variant {v}"]]
    told = ", ".join(f"{v} {100 * m:.0f}" for v, m in means.items())
    least = ", ".join(f"{v} {100 * bench.expected[f'variant {v}']:.0f}" for v in means)
    return f"mIoU {told} %", f"at least {least} % ({bench.source})", not low, "report this, with check.json"


@stage
def same_again(bench: Bench) -> Finding:
    """The same seed, picture and sentence give the same mask, also from a new scene."""
    sample = bench.samples[0]
    text = sample.records[0].text
    masks = [bench.model.set_image(sample.image(), oracle=sample.masks).segment(text, "g").mask for _ in range(2)]
    same = bool((masks[0] == masks[1]).all())
    told = "equal masks" if same else f"IoU {iou(*masks):.4f} of two runs"
    return told, f"equal ({THEORY})", same, "torch.use_deterministic_algorithms(True) shows what is not deterministic"


def run(model: RefDiff) -> Iterator[Line]:
    """One line for each stage, as it is done; an error is a line, too."""
    toy = model.networks.name == "toy"
    file = data_dir() / "models" / ("toy" if toy else "sd15") / "acceptance.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    samples = load_toyref("val", limit=8) if toy else load_photos()
    bench = Bench(model, samples, known["at_least"], "measured by us" if toy else UNSEEN)
    for name, function in STAGES.items():
        start = time.perf_counter()
        try:
            line = Line(name, *function(bench))
        except (ValueError, OSError, RuntimeError) as error:  # so that the other stages are still looked at
            line = Line(
                name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "no error", False, "report this"
            )
        line.seconds = time.perf_counter() - start
        yield line


def write_report(model: RefDiff, lines: list[Line], out: Path) -> None:
    """``check.json``, and ``check.md`` to paste into an issue."""
    nets, (device, _) = model.networks, device_and_dtype()
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    about = {"preset": nets.name, "device": name, "dtype": str(nets.dtype), "GPU GiB": memory, "versions": versions()}
    write_text(
        out / "check.json",
        json.dumps({**about, "lines": [asdict(x) for x in lines]}, indent=1, ensure_ascii=False) + "\n",
    )
    rows = [f"| {'✓' if x.ok else '✗'} | {x.stage} | {x.found} | {x.expected} | {x.seconds:.1f} |" for x in lines]
    peak = f", most GPU memory {memory:.1f} GiB" if memory else ""
    head = f"refdiff-lite check {nets.name}: {sum(x.ok for x in lines)} of {len(lines)} on {name} in {nets.dtype}{peak}"
    table = "\n".join(["| | stage | found | expected | s |", "|---|---|---|---|---|", *rows])
    told = ", ".join(f"{k} {v}" for k, v in versions().items())
    write_text(out / "check.md", f"{head}\n\n{table}\n\n{told}\n")
