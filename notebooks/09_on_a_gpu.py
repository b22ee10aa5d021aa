# ---
# title: On a GPU, real weights and your own photo
# minutes: 60
# cpu: 1
# gpu: 4
# goals:
#   - run the same pipeline on Stable Diffusion 1.5, CLIP ViT-B/16 and SAM, and on a photo of yours
#   - say what half precision does to latents and attention, and where it breaks
#   - work out by arithmetic whether a GPU's memory is enough, and what low-memory mode buys
#   - time a GPU properly, and batch sentences
# ---
# %% tags=["setup"]
from refdiff_lite import lesson

PRESET = "toy"
lesson.start(PRESET)

# %%
import copy
import os
import time
from itertools import groupby, pairwise
from tempfile import TemporaryDirectory
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import open_clip
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, SamConfig, SamModel

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.attention import min_max, record_attention, word_map
from refdiff_lite.checks import on_a_gpu as checks
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.expression import parse, token_positions
from refdiff_lite.files import data_dir
from refdiff_lite.images import load_image
from refdiff_lite.latents import add_noise, alpha_bar, ddim_timesteps, encode
from refdiff_lite.masks import cached
from refdiff_lite.networks import PRESETS, device_and_dtype, hub
from refdiff_lite.networks.compat import cross_attention_modules
from refdiff_lite.toy.train_unet import make_scheduler
from refdiff_lite.viz import show_image, show_map, show_mask

# %% [markdown]
# So far everything ran on small networks. The same code runs on Stable Diffusion 1.5: in Colab choose *Runtime > Change
# runtime type > GPU*, write `PRESET = "sd15"` in the first cell, run all. This lesson is about what you then meet:
# devices, half precision, memory, downloads, time. Each cell also runs on the toy, so read it here first.

# %% [markdown]
# ## 1 · Which device, which precision?
#
# The library decides once, in one function: a GPU with half precision where there is one, else single precision.

# %%
model = RefDiff.from_preset(PRESET)
nets = model.networks


def choose():
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.float16
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu"), torch.float32


assert choose() == device_and_dtype()
print("networks:", nets.device.type, nets.sd.unet.dtype)


# %% [markdown]
# Why not half everywhere? A GPU has units for 16 bits and moves half the bytes; most CPUs must imitate it. The same
# product of matrices on the device that you have:


# %%
def synchronise():
    if nets.device.type != "cpu":
        getattr(torch, nets.device.type).synchronize()


def seconds(run, repeats=5):
    """Median time of a pass, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        synchronise()
        start = time.perf_counter()
        run()
        synchronise()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


a = torch.rand(512, 512, device=nets.device)
single, half = seconds(lambda: a @ a), seconds(lambda h=a.half(): h @ h)
print(f"half precision takes {half / single:.1f} times as long as single on this {nets.device.type}")

# %% [markdown]
# ## 2 · What half precision does
#
# Sixteen bits: one for the sign, five for the exponent, ten for the digits. So numbers end at 65504, steps between
# neighbours are a thousandth, and small numbers fade away. Toy numbers:


# %% tags=["nbval-check-output"]
def h(x):
    return torch.tensor(x, dtype=torch.float16)


print("largest:", torch.finfo(torch.float16).max, "| one step at 1:", torch.finfo(torch.float16).eps)
print("2048 + 1 =", float(h(2048.0) + 1))
print("exp(12)  =", float(h(12.0).exp()))
print("1e-8     =", float(h(1e-8)))

# %% [markdown]
# Each line is a real bug. A sum of many small numbers stops growing. The exponentials of a softmax overflow. And the
# small eps that guards a division is zero. Here is the softmax, first as written in books:

# %% tags=["nbval-check-output"]
logits = torch.tensor([12.0, 11.0, 3.0], dtype=torch.float16)
naive = logits.exp() / logits.exp().sum()
shifted = (logits - logits.max()).exp()
stable = shifted / shifted.sum()
torch.testing.assert_close(stable, logits.softmax(-1))
print("naive: ", naive.tolist())
print("stable:", [round(x, 2) for x in stable.tolist()])

# %% [markdown]
# Taking the largest logit away changes no share, for numerator and denominator shrink alike; PyTorch does it for you.
# But who guards $qk^\top$ itself? `record_attention` computes in fp32, whatever the UNet's precision, and so is the map:

# %% tags=["nbval-check-output"]
flat = torch.full((2, 2), 0.5, dtype=torch.float16)
print("min-max of a flat map, half:  ", ((flat - flat.min()) / (flat.max() - flat.min() + 1e-8)).flatten().tolist())
print("min-max of a flat map, single:", min_max(flat.float()).flatten().tolist())

# %% [markdown]
# Where do our own numbers lie? The lines show how far the next number is, as a share of the number itself: how coarse a
# format is. The bars show what the UNet computes with on a bundled scene.

# %%
samples = load_toyref("val", limit=11)
scene = model.set_image(samples[10].path)
unet, vae, scheduler = nets.use("unet"), nets.use("vae"), nets.scheduler
prompt, t = "the purple dog", scene.timesteps[model.config.noise_step]
noise = torch.randn(scene.latents.shape, generator=torch.Generator().manual_seed(0))


def look(unet, x0, scores="softmax"):
    """(predicted noise, attention) of one UNet call over the noised scene, in the UNet's own precision."""
    x0, text = x0.to(unet.dtype), model.encode_prompt([prompt]).to(unet.dtype)
    with record_attention(unet, model.config.layers or nets.layers, scores=scores) as maps, torch.no_grad():
        x = add_noise(scheduler, x0, noise.to(x0), t)
        return unet(x, t, text).sample.float(), maps


# %%
shares = torch.cat([m.flatten() for m in look(unet, scene.latents)[1].maps.values()])
found = {"attention shares": shares, "latents": scene.latents}
found["attention logits"] = torch.cat([m.flatten() for m in look(unet, scene.latents, "logits")[1].maps.values()])
x = np.logspace(-10, 6, 400)
x_half = x.clip(max=65504).astype(np.float16)
formats = {
    "half (fp16)": np.where(x < 65504, np.spacing(x_half), np.inf),
    "brain float (bf16)": 2.0 ** (np.floor(np.log2(x)) - 7),
}
formats["single (fp32)"] = np.spacing(x.astype(np.float32))
figure, ax = plt.subplots(figsize=(7.5, 3))
for (name, gap), style in zip(formats.items(), ("-", "--", ":"), strict=True):
    valid = np.isfinite(gap.astype(float)) & (gap < x)
    ax.loglog(x[valid], gap[valid] / x[valid], style, label=name)
for y, (name, values), colour in zip((3e-6, 1.2e-5, 5e-5), found.items(), lesson.PALETTE[3:], strict=False):
    low, high = np.quantile(values.abs().float().cpu(), (0.01, 0.99))
    ax.plot([low, high], [y, y], lw=5, color=colour, solid_capstyle="butt")
    ax.text(high * 1.6, y, name, va="center", fontsize=8)
ax.set(xlabel="size of a number", ylabel="gap to the next, as a share", ylim=(3e-8, 2))
_ = ax.legend(loc="upper right")

# %% [markdown]
# The fp16 line is flat in the middle, climbs where numbers are small, and ends at 65504; bf16 reaches everywhere, but is
# eight times coarser. Bars show the middle 98 % of each quantity. If a bar reaches into the climb, its small values are
# rounded to few digits: attention that hardly matters.

# %% [markdown]
# Arithmetic predicts; measure it. We run VAE and UNet in both precisions, on the same picture and noise:

# %%
pixels = tuple(n * nets.factor for n in scene.latents.shape[-2:])
results = {}
for name, cast in (("single", torch.nn.Module.float), ("half", torch.nn.Module.half)):
    vae_, unet_ = cast(copy.deepcopy(vae)), cast(copy.deepcopy(unet))
    x0 = encode(vae_, scene.image, pixels)
    predicted, maps = look(unet_, x0)
    token = token_positions(nets.tokenizer, prompt, parse(prompt).span)
    results[name] = x0.float(), predicted, word_map(maps, token, scene.size).cpu()
for what, exact, rounded in zip(("latents", "noise", "word map"), *results.values(), strict=True):
    print(f"{what:9} relative difference {float((rounded - exact).norm() / exact.norm()):.1e}")

# %%
c, c_half = results["single"][2], results["half"][2]
figure, axes = plt.subplots(1, 4, figsize=(9, 2.3))
show_image(scene.image, axes[0], prompt)
show_map(c, None, axes[1], "word map, single")
show_map(c_half, None, axes[2], "word map, half")
top = float((c_half - c).abs().max())
drawn = axes[3].imshow(c_half - c, cmap=lesson.DIVERGING, vmin=-top, vmax=top)
axes[3].set_title("half minus single")
axes[3].set_axis_off()
figure.colorbar(drawn, ax=axes[3], shrink=0.8, label="difference in c")
plt.show()

# %% tags=["nbval-check-output"]
print("word maps differ by less than 0.02:", top < 0.02)
kept = all(torch.equal(p.half().float(), p.float()) for p in unet.parameters())
print("weights lie on disk in half precision already:", kept)

# %% [markdown]
# Compare the colour bar with the map's own range from 0 to 1: one look at the UNet survives half precision easily. DDIM
# inversion is another matter, for it feeds its errors back step by step (lesson 2).

# %% [markdown]
# ## 3 · Memory, by arithmetic
#
# Before you rent a GPU, compute. **Weights**: parameters times bytes. A convolution from 320 to 320 channels has a
# $3 \times 3$ kernel for each pair, and a bias for each output:

# %% tags=["nbval-check-output"]
by_hand = 320 * 320 * 3 * 3 + 320
layer = torch.nn.Conv2d(320, 320, 3, device="meta")
assert by_hand == sum(p.numel() for p in layer.parameters())
print(f"{by_hand} parameters, {2 * by_hand / 2**20:.1f} MiB in half; the tensor lies on: {layer.weight.device}")

# %% [markdown]
# The device *meta* has shapes and no numbers. So we can build all real networks, from their published configurations,
# without a download and without memory:

# %%
with torch.device("meta"):
    clip_config = open_clip.get_model_config("ViT-B-16")
    text_config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    real = {
        "UNet": UNet2DConditionModel(cross_attention_dim=768),
        "VAE": AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[128, 256, 512, 512],
            layers_per_block=2,
        ),
        "text encoder": CLIPTextModel(text_config),
        "CLIP": open_clip.CLIP(*(clip_config[k] for k in ("embed_dim", "vision_cfg", "text_cfg")), quick_gelu=True),
        "SAM": SamModel(SamConfig()),
    }
count = {name: sum(p.numel() for p in net.parameters()) for name, net in real.items()}

# %% [markdown]
# Is that right? The files on the hub have known sizes (some in half, some in single precision). Ours must agree:

# %% tags=["nbval-check-output"]
sd = list(hub.WEIGHTS["sd15"].files.values())
files = {"UNet": (max(sd), 2), "VAE": (sorted(sd)[-3], 2), "text encoder": (sorted(sd)[-2], 2)}
files |= {
    "CLIP": (max(hub.WEIGHTS["openai"].files.values()), 4),
    "SAM": (max(hub.WEIGHTS["sam-base"].files.values()), 4),
}
for name, (size, each) in files.items():
    assert abs(each * count[name] / size - 1) < 1e-3
    print(f"{name:12} {count[name] / 1e6:6.1f} M parameters, file {size / 1e6:6.0f} MB at {each} bytes each")
print(f"all in half: {2 * sum(count.values()) / 2**30:.2f} GiB")

# %% [markdown]
# **Activations** are the other half: what a network holds while it computes. Self-attention is the worst. With $n$
# pixels of a layer's grid, each of $N$ heads has a matrix of $n \times n$:
#
# $$\mathrm{bytes} = N\,n^2\,b, \qquad n = \Big(\frac{\mathrm{side}}{8 f}\Big)^2$$
#
# where $f$ is how much coarser the layer is than the latents, and $b$ the bytes of a number.

# %% [markdown]
# ### Exercise 9.1 · The bytes of attention
# **Difficulty** ●●○○○ · **Time** 5 minutes
#
# Write the formula.
#
# <details><summary>Hint</summary>
#
# First the tokens: `(side // 8 // factor) ** 2`. Then heads × tokens² × bytes.
# </details>


# %% tags=["exercise"]
def my_attention_bytes(side, heads, factor, size):
    """side: of the picture in pixels; factor: 1 at the latents' size, 2 at half of it; size: bytes of a number."""
    ### BEGIN SOLUTION
    tokens = (side // 8 // factor) ** 2
    return heads * tokens**2 * size
    ### END SOLUTION


checks.check_attention_bytes(my_attention_bytes)

# %%
sides = np.array([256, 384, 512, 768, 1024])
figure, ax = plt.subplots(figsize=(8, 3))
for f, style in zip((1, 2, 4), ("o-", "s--", "^:"), strict=True):
    ax.loglog(sides, 8 * (sides / 8 / f) ** 4 * 2 / 2**30, style, markersize=4, label=f"self-attention, f = {f}")
ax.loglog(sides, 8 * (sides / 8) ** 2 * 77 * 2 / 2**30, "d-", markersize=4, label="cross-attention (77 words), f = 1")
ax.axhline(15, color="k", lw=0.8)
ax.text(260, 17, "free on a T4 of 16 GB, about 15 GiB", fontsize=8)
ax.set(xlabel="side of the picture, pixels", ylabel="one layer's matrices in half, GiB", ylim=(2e-5, 60))
ax.set_xticks(sides, sides)
ax.minorticks_off()
_ = figure.legend(loc="outside right center")

# %% [markdown]
# Self-attention rises with the fourth power of the side, cross-attention with the second, for 77 words stay 77. GPUs
# therefore never write the matrix down: *fused* attention keeps a few rows at a time. But whoever wants to **see**
# attention must write it down. So we read coarse layers, average heads at once, and refuse what does not fit:

# %% tags=["nbval-check-output"]
grid = scene.latents.shape[-2] * scene.latents.shape[-1]
try:
    with record_attention(unet, "", "self", max_bytes=4 * grid**2 - 1):
        unet(scene.latents, t, model.encode_prompt([prompt]))
except ValueError as error:
    print(str(error).split(" needs ")[0], "...", str(error).split("; ")[1])

# %% [markdown]
# That budget was one byte too small for one layer's mean over heads, $4n^2$ bytes: our formula with $N = 1$, $b = 4$.
#
# What all activations of a pass come to is counted by `make bench`, on the meta device, tensor by tensor. These are its
# figures ([benchmarks](../benchmarks/README.md)), for 512 and 1024 pixels:

# %%
ACTIVATIONS = {
    "UNet": (461, 1842),
    "VAE": (322, 1286),
    "text encoder": (0, 0),
    "CLIP": (505, 1722),
    "SAM": (1488, 1488),
}
weights = {name: 2 * n / 2**20 for name, n in count.items()}  # MiB in half
parts = {side: {n: (weights[n], ACTIVATIONS[n][k]) for n in real} for k, side in enumerate((512, 1024))}

# %% [markdown]
# ### Exercise 9.2 · Does it fit?
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# All weights may lie on the GPU at once, or only those of the network in use (`low_memory`). Networks run one after
# another, and a network's activations go when it is done. How much memory is needed at the worst moment?
#
# <details><summary>Hint</summary>
#
# All at once: the sum of all weights, and the largest activations. Low memory: for each network weights plus
# activations; then the maximum.
# </details>


# %% tags=["exercise"]
def my_peak(parts, low_memory):
    """parts: name -> (weights, activations), both in the same unit. Returns the peak in that unit."""
    ### BEGIN SOLUTION
    if low_memory:
        return max(w + a for w, a in parts.values())
    return sum(w for w, _ in parts.values()) + max(a for _, a in parts.values())
    ### END SOLUTION


checks.check_peak(my_peak)

# %% tags=["nbval-check-output"]
for side, needs in parts.items():
    whole = sum(w for w, _ in needs.values()) + max(a for _, a in needs.values())
    low = max(w + a for w, a in needs.values())
    print(f"{side:4} px: all on the GPU {whole / 1024:.2f} GiB, low-memory mode {low / 1024:.2f} GiB")

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 2.9), sharex=True)
for ax, (side, needs) in zip(axes, parts.items(), strict=True):
    names = list(needs)[::-1]
    w, a = np.array([needs[n] for n in names]).T / 1024
    ax.barh(names, w, color=lesson.BLUE, label="weights")
    ax.barh(names, a, left=w, color=lesson.ORANGE, hatch="//", label="activations")
    ax.axvline((w + a).max(), color="k", lw=0.8, ls="--", label="peak, low memory")
    ax.axvline(w.sum() + a.max(), color="k", lw=0.8, label="peak, all at once")
    ax.set(xlabel="GiB, half precision", title=f"{side} px")
_ = figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

# %% [markdown]
# Each bar is one network at work. Low-memory mode pays for the longest bar; otherwise you pay for all blue parts and the
# longest hatched one. At 1024 pixels activations rule, so low memory saves less there. About 1 GiB for the GPU's own
# context comes on top. These are counts: **no GPU has confirmed them yet.**

# %% [markdown]
# ## 4 · Low-memory mode
#
# One network on the GPU, the others wait in the computer's memory. The price: weights travel. Who travels when? Let us
# watch which network is asked for, while three sentences are answered one by one, and then together.

# %%
asked = ["the purple dog", "the penguin", "the apple"]


def watch(together):
    """Names of the networks in the order of their use, how often they moved, and the masks."""
    nets = RefDiff.from_preset(PRESET, low_memory=True).backbones
    with patch.object(nets, "use", wraps=nets.use) as use, patch.object(nets, "_place", wraps=nets._place) as place:
        scene = RefDiff(nets, model.config).set_image(samples[10].path)
        results = scene.segment_all(asked) if together else [scene.segment(s) for s in asked]
    return [call.args[0] for call in use.call_args_list], place.call_count, [r.mask for r in results]


runs = {"one by one": watch(False), "together": watch(True)}

# %%
colours = {"vae": lesson.SKY, "text_encoder": lesson.ORANGE, "unet": lesson.GREEN, "clip": lesson.PINK}
figure, ax = plt.subplots(figsize=(8, 1.7))
for row, (used, _, _) in enumerate(runs.values()):
    for k, (part, _) in enumerate(groupby(used)):
        ax.barh(row, 0.92, left=k, color=colours[part])
        ax.text(k + 0.46, row, part.split("_")[0], ha="center", va="center", fontsize=8)
ax.set(yticks=[0, 1], yticklabels=runs, xlabel="moves onto the GPU, in order", ylim=(1.5, -0.5))
plt.show()

# %% [markdown]
# Every box is one move. Sentence by sentence, text encoder, UNet and CLIP take turns and chase each other off the GPU.
# Together, the text encoder reads all sentences first, then the UNet looks at all of them in one batch, then CLIP ranks.

# %% [markdown]
# ### Exercise 9.3 · Counting moves
# **Difficulty** ●○○○○ · **Time** 5 minutes
#
# Given the networks in the order in which they are used: how often must one be brought onto the GPU?
#
# <details><summary>Hint</summary>
#
# Compare neighbours: `for before, after in pairwise([None, *used])`. A `True` counts as 1 in `sum`.
# </details>


# %% tags=["exercise"]
def my_loads(used):
    """used: names of networks in order. Returns a count."""
    ### BEGIN SOLUTION
    return sum(before != after for before, after in pairwise([None, *used]))
    ### END SOLUTION


checks.check_loads(my_loads)

# %% tags=["nbval-check-output"]
size = {
    "vae": weights["VAE"],
    "text_encoder": weights["text encoder"],
    "unet": weights["UNet"],
    "clip": weights["CLIP"],
}
for name, (used, placed, _) in runs.items():
    moves = [after for before, after in pairwise([None, *used]) if after != before]
    assert placed == 2 * len(moves) - 1  # the library brings each one in, and all but the last one out
    print(
        f"{name:10} {len(moves):2d} moves; on SD 1.5 that is {sum(size[m] for m in moves) / 1024:.1f} GiB onto the GPU"
    )
print(
    "the same masks:",
    all(np.array_equal(a, b) for a, b in zip(runs["one by one"][2], runs["together"][2], strict=True)),
)

# %% [markdown]
# A bus carries perhaps 10 GiB a second: divide, and you have the seconds that low memory costs. So use it where you
# must, and then ask all your sentences at once.

# %% [markdown]
# ## 5 · Weights and caches
#
# The toy is bundled. The real weights come from the hub, at pinned commits, as safetensors only (a pickle can run code).
# `refdiff-lite download sd15` in a terminal says the sizes first; if it breaks off, it goes on where it stopped. Without
# it, `from_preset("sd15")` downloads at its first call.

# %% tags=["nbval-check-output"]
for name, entry in hub.WEIGHTS.items():
    print(f"{name:9} {sum(entry.files.values()) / 1e9:4.2f} GB  {entry.repo} @ {entry.revision[:7]}, {entry.licence}")

# %% [markdown]
# Three places keep what cost time:
#
# - `HF_HOME`: the hub's weights. In Colab they go when the session ends, unless it lies on your Drive.
# - `REFDIFF_CACHE`: SAM's masks of each image, which take seconds.
# - `scene`: latents, maps, features of one image, while Python runs.
#
# A cache must know *all* that its content depends on. Ours takes a fingerprint of every pixel and every setting:

# %% tags=["nbval-check-output"]
computed = []


def slow():
    computed.append(1)
    return torch.ones(1, *scene.image.shape[:2], dtype=torch.bool)


changed = scene.image.copy()
changed[0, 0, 0] ^= 1
with TemporaryDirectory() as folder, patch.dict(os.environ, REFDIFF_CACHE=folder):
    for what, image, settings in (
        ("first", scene.image, {"sam": "sam-base"}),
        ("the same again", scene.image, {"sam": "sam-base"}),
        ("one bit of one pixel", changed, {"sam": "sam-base"}),
        ("another SAM", scene.image, {"sam": "sam-huge"}),
    ):
        cached(image, settings, slow)
        print(f"{what:21} computed {len(computed)} times so far")

# %% [markdown]
# Lesson 8 shows what happens otherwise: a cache with the wrong key once made a published evaluation answer every
# sentence of an object with the first one's mask.

# %% [markdown]
# ## 6 · What changes from toy to sd15
#
# No line of the pipeline. But sizes, layers and constants do, and these you should know by heart. Nothing here is typed
# in: both columns are asked for.


# %%
def facts(name, unet, vae, tokenizer, config):
    """What a student of the toy must unlearn, for one preset."""
    preset, factor = PRESETS[name], 2 ** (len(vae.config.block_out_channels) - 1)
    layers, side, width = config.layers or preset.layers, preset.side, unet.config.cross_attention_dim
    words = torch.empty(1, tokenizer, width, device="meta")
    with record_attention(unet, layers) as maps, torch.no_grad():
        unet(torch.empty(1, 4, side // factor, side // factor, device="meta"), 1, words)
    times = ddim_timesteps(make_scheduler(), config.num_steps)
    share = config.weight_g / (config.weight_g + config.weight_d)
    return {
        "picture's longer side, pixels": side,
        "latents": f"{side // factor}×{side // factor}",
        "UNet's widths": ", ".join(map(str, unet.config.block_out_channels)),
        "parameters of the UNet, millions": f"{sum(p.numel() for p in unet.parameters()) / 1e6:.1f}",
        "heads": unet.config.attention_head_dim,
        "layers read, of all": f"{len(maps.maps)} of {len(cross_attention_modules(unet))}",
        "grids read": ", ".join(sorted({f"{m.shape[1]}×{m.shape[2]}" for m in maps.maps.values()})),
        "text: tokens × width": f"{tokenizer} × {width}",
        "noise: timestep": times[config.noise_step],
        "noise: share of variance": f"{1 - alpha_bar(make_scheduler(), times[config.noise_step]):.3f}",
        "alpha, beta": f"{share:.2f}, {config.beta}",
        "how g chooses its threshold": config.weak_choice,
    }


# %% tags=["nbval-check-output"]
toy = data_dir() / "models" / "toy" / "sd"
with torch.device("meta"):
    toy_unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(str(toy / "unet")))
    toy_vae = AutoencoderKL.from_config(AutoencoderKL.load_config(str(toy / "vae")))
small = CLIPTokenizer.from_pretrained(toy / "tokenizer")
columns = [
    facts("toy", toy_unet, toy_vae, small.model_max_length, RefDiffConfig.toy()),
    facts("sd15", real["UNet"], real["VAE"], text_config.max_position_embeddings, RefDiffConfig.paper()),
]
print(f"{'':33}{'toy':>20}{'sd15':>22}")
for name in columns[0]:
    print(f"{name:33}{columns[0][name]:>20}{columns[1][name]:>22}")

# %% [markdown]
# Two lines deserve a second look. Noise: the schedule is the same, the step is not, for the toy's was chosen on its own
# val scenes. And `alpha`: a weight means nothing without the spread of the scores that it weighs (lesson 7).
#
# How coarse is a grid, compared with the picture?

# %%
image = scene.image
plans = {f"toy, {PRESETS['toy'].side} px": columns[0]["grids read"].split(", ")}
plans[f"sd15, {PRESETS['sd15'].side} px"] = columns[1]["grids read"].split(", ")
plans["sd15, 1024 px (official)"] = ["32×32"]
figure, axes = plt.subplots(1, sum(map(len, plans.values())), figsize=(9, 2.5))
panels = [(name, grid) for name, grids in plans.items() for grid in grids]
for ax, (name, grid) in zip(axes, panels, strict=True):
    rows, cols = map(int, grid.split("×"))
    show_image(image, ax, f"{name}\n{grid} cells")
    for k in range(1, cols):
        ax.axvline(k * image.shape[1] / cols - 0.5, color="w", lw=0.6)
    for k in range(1, rows):
        ax.axhline(k * image.shape[0] / rows - 0.5, color="w", lw=0.6)
plt.show()

# %% [markdown]
# Each cell has one attention value; everything finer in a word map is interpolation. At 512 pixels Stable Diffusion's
# layers are no finer, relative to the picture, than the toy's best. What it has more of is not resolution but knowledge.
# The official code doubles the side to halve the cells, and pays with the fourth power.

# %% [markdown]
# And the **tokenizer**. The toy's vocabulary was learned from its own captions, CLIP's from the web. Its real one comes
# with open_clip, so we may look:

# %% tags=["nbval-check-output"]
big = open_clip.get_tokenizer("ViT-B-16")
for sentence in ("the purple dog", "the strawberry", "a man on a skateboard"):
    pieces = [big.decoder[i].removesuffix("</w>") for i in big.encode(sentence)]
    print(f"toy   {' | '.join(p.removesuffix('</w>') for p in small.tokenize(sentence))}")
    print(f"sd15  {' | '.join(pieces)}")

# %% [markdown]
# Each word of its own world is one piece to the toy, and a strange word falls to bits. The real vocabulary knows both.
# That is why lesson 3 looks for a word's *last* piece, by its place in the text.

# %% [markdown]
# ## 7 · Your own photo
#
# Give a path; in Colab write `PHOTO = "upload"`. With nothing given a bundled scene is taken. On the toy a photo runs
# too, but its masks mean little: it has only ever seen 45 things.

# %%
PHOTO = ""  # a path, or in Colab "upload"
SENTENCES = asked  # what to look for in it

if PHOTO == "upload":
    from google.colab import files

    PHOTO = next(iter(files.upload()))
photo = load_image(PHOTO or samples[10].path)
scene = model.set_image(photo)

# %% [markdown]
# A photo is not square. Its longer side is brought to the preset's, and both sides to multiples of what the UNet can
# halve again and again. By hand, for the photo and two other shapes:

# %%
shapes = {"photo": photo, "landscape": np.zeros((427, 640, 3), np.uint8), "tall": np.zeros((900, 300, 3), np.uint8)}
for name, picture in shapes.items():
    scale = nets.side * model.config.side_factor / max(picture.shape[:2])
    sides = [nets.multiple * max(1, round(n * scale / nets.multiple)) for n in picture.shape[:2]]
    latents = model.set_image(picture).latents.shape[-2:]
    assert tuple(latents) == tuple(n // nets.factor for n in sides)
    print(
        f"{name:10} {picture.shape[0]}×{picture.shape[1]} -> {sides[0]}×{sides[1]} pixels -> latents {latents[0]}×{latents[1]}"
    )

# %%
kind = "sam" if nets.sam_id else "felzenszwalb"
results = scene.segment_all(SENTENCES, "full", kind)
figure, axes = plt.subplots(2, len(results) + 1, figsize=(8, 4.2))
show_image(scene.image, axes[0, 0], "photo")
axes[1, 0].set_axis_off()
for (above, below), result in zip(axes.T[1:], results, strict=True):
    show_map(result.word_map, scene.image, above, f'"{result.expression.head}"')
    show_mask(result.mask, photo, below, result.expression.text)
plt.show()

# %% [markdown]
# Above, what diffusion felt; below, what was chosen. If a mask is wrong, go back the way it came (lesson 7): was a fitting
# proposal there? Is the map on the right thing? If not, was the right *word* read? `result.plot()` shows it all.

# %% [markdown]
# ## 8 · Time, measured properly
#
# A GPU works on its own: a call only queues the work and returns. Read the clock then, and you time the queue. And the
# first pass is slower than all others, for kernels are chosen and memory is fetched. So: warm up, wait, start, run,
# wait, stop.

# %% [markdown]
# ### Exercise 9.4 · The stopwatch
# **Difficulty** ●●●○○ · **Time** 10 minutes
#
# `new_gpu()` gives a pretended GPU with `run()`, `synchronise()` and `clock()`. How many seconds does one warm pass
# take? Use `repeats` passes.
#
# <details><summary>Hint</summary>
#
# Six steps: `run`, `synchronise`, `clock`, `repeats` times `run`, `synchronise`, `clock`. Then divide.
# </details>


# %% tags=["exercise"]
def my_seconds(new_gpu, repeats):
    """Seconds of one pass, without the first one's extra cost."""
    gpu = new_gpu()
    ### BEGIN SOLUTION
    gpu.run()
    gpu.synchronise()
    start = gpu.clock()
    for _ in range(repeats):
        gpu.run()
    gpu.synchronise()
    return (gpu.clock() - start) / repeats
    ### END SOLUTION


checks.check_seconds(my_seconds)

# %% [markdown]
# Now the real thing: does it pay to ask several sentences at once? First, they must give the same maps.

# %%
many = [f"{article} {thing}" for article in ("a", "the") for thing in ("dog", "penguin", "apple", "cat")]
together = scene.attend_all(many)
for prompt, batched in zip(many, together, strict=True):
    alone = scene.attend(prompt)
    for name, expected in alone.maps.items():
        torch.testing.assert_close(batched["cross"].maps[name], expected, atol=2e-3, rtol=0)

# %%
sizes = [1, 2, 4, 8]
passes = [seconds(lambda: scene.attend("dog"), repeats=1) for _ in range(6)]
each = [seconds(lambda n=n: scene.attend_all(many[:n]), repeats=3) / n for n in sizes]
figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 2.5))
left.bar(range(1, 7), 1000 * np.array(passes))
left.set(xlabel="measurement", ylabel="milliseconds", title="the same pass, six times")
right.plot(sizes, 1000 * np.array(each), "o-")
right.set(xlabel="sentences in a batch", ylabel="milliseconds per sentence", title="batching", xticks=sizes, ylim=0)
plt.show()

# %% [markdown]
# Left: the same work never takes the same time, so take a median, and compare things *in turn*, as a ratio. Right: a pass
# is many small operations, and starting each costs time whatever its size; a batch shares that cost. On a GPU the curve
# falls until the batch fills the machine.

# %% [markdown]
# <details><summary><b>What can go wrong</b></summary>
#
# - **CUDA out of memory.** In this order: `low_memory=True`; SAM base instead of huge; a smaller `side_factor`; restart the
#   runtime, since a notebook holds on to old results.
# - **Black pictures, NaN.** An overflow in half precision, often in a fine-tune's VAE: keep that one in fp32.
# - **A photo lying on its side.** Cameras store the turn in EXIF; `load_image` obeys it, plain Pillow does not.
# - **"Offline", yet you are online.** `HF_HUB_OFFLINE=1` is set somewhere; a download needs it unset.
# - **pip replaced torch.** Then restart the runtime; the set-up cell adds what is missing and replaces nothing.
# - **The wrong CLIP.** OpenAI's weights need the *quickgelu* architecture; without it nothing crashes, all is worse.
# </details>
#
# An error should say what to do. Some that you may meet:

# %% tags=["nbval-check-output"]
attempts = {
    "a preset that is none": lambda: RefDiff.from_preset("sd21"),
    "a choice that the toy lacks": lambda: RefDiff.from_preset("toy", sam="sam-huge"),
    "a file that is not there": lambda: model.set_image("holiday.jpg"),
    "floats for pixels": lambda: model.set_image(photo / 255),
}
for what, attempt in attempts.items():
    try:
        attempt()
    except (ValueError, OSError) as error:
        print(f"{what}:\n    {error}")

# %% [markdown]
# ## Recap
#
# - Device and precision are chosen in one place. Half precision costs the maps next to nothing; overflow, long sums and
#   tiny eps are where it breaks.
# - Weights are parameters times bytes; self-attention grows with the fourth power of the side. The meta device counts both.
# - Low memory trades traffic for room; asking sentences together trades it back.
# - Warm up, synchronise, take a median, compare in turn.
# - We have counted and rehearsed sd15 at full size with random weights; on real weights *you* may be first. Tell us.
#
# **References.** Micikevicius et al., *Mixed Precision Training* ([arXiv 1710.03740](https://arxiv.org/abs/1710.03740)).
# Dao et al., *FlashAttention* ([arXiv 2205.14135](https://arxiv.org/abs/2205.14135)). Rombach et al., *Latent Diffusion*
# ([arXiv 2112.10752](https://arxiv.org/abs/2112.10752)). Kirillov et al., *Segment Anything*
# ([arXiv 2304.02643](https://arxiv.org/abs/2304.02643)). In the code: `refdiff_lite/backbones.py`,
# `refdiff_lite/hub.py`, `refdiff_lite/mask_cache.py`, `benchmarks/bench_memory.py`.
