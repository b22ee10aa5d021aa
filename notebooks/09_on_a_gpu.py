# ---
# title: On a GPU, real weights and your own photo
# minutes: 75
# cpu: 1
# goals:
#   - run the same pipeline on Stable Diffusion 1.5, CLIP ViT-B/16 and SAM, and on a photo of yours
#   - say what half precision does to latents and attention, and repair code that breaks in it
#   - work out by arithmetic whether a GPU's memory is enough, and plan a run for it
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

from refdiff_lite import RefDiff, RefDiffConfig, acceptance
from refdiff_lite.attention import min_max, record_attention, word_map
from refdiff_lite.checks import on_a_gpu as checks
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.expression import parse, token_positions
from refdiff_lite.files import data_dir
from refdiff_lite.images import load_image
from refdiff_lite.inversion import guided, invert
from refdiff_lite.latents import add_noise, alpha_bar, ddim_timesteps, encode
from refdiff_lite.masks import cached
from refdiff_lite.networks import PRESETS, device_and_dtype, hub
from refdiff_lite.networks.compat import cross_attention_modules
from refdiff_lite.toy.train_unet import make_scheduler
from refdiff_lite.viz import show_image, show_map, show_mask

# %% [markdown]
# So far everything ran on small networks. The same code runs on Stable Diffusion 1.5: in Colab choose *Runtime > Change
# runtime type > GPU*, write `PRESET = "sd15"` in the first cell, and run all. This lesson is about what you meet then:
# devices, half precision, memory, downloads, time. Every cell also runs on the toy, so read it here first.
#
# First of all: does every stage work on *this* machine? `refdiff-lite check sd15` asks it in a terminal; here is the
# same, line by line. For the toy we have measured what to expect. For Stable Diffusion it comes from the literature.

#
# Is Colab's free T4 enough? Yes: at 512 to 1024 pixels all networks together need 4 to 5.3 of its 15 GiB, SAM huge
# included (section 4 counts it), so low-memory mode is not needed there. Is the repository not public yet? Build the
# wheel (`make dist`), upload it in Colab's file pane, and run `%pip install refdiff_lite-*.whl` before the first cell.

# %%
model = RefDiff.from_preset(PRESET)
for line in acceptance.run(model):
    print(line)

# %% [markdown]
# ## 1 · Which device, which precision?
#
# The library decides once, in one function: half precision where there is a CUDA GPU, else single precision.

# %% [markdown]
# ### Your own photo first
#
# Give a path; in Colab write `PHOTO = "upload"`. Then write sentences about *that* photo. With nothing given, a bundled
# picture is taken. On the toy a photo runs, too, but its masks mean little: it has only ever seen 45 kinds of thing.

# %%
PHOTO = ""  # a path, or in Colab "upload"
SENTENCES = ["the purple dog", "the penguin", "the apple"]  # what to look for in it

samples = load_toyref("val", limit=11)
PHOTO = lesson.upload() if PHOTO == "upload" else PHOTO
if not PHOTO and PRESET != "toy":
    PHOTO, SENTENCES = str(data_dir() / "photos" / "images" / "coffee.jpg"), ["the cup", "silver spoon on the right"]
photo = load_image(PHOTO or samples[10].path)
scene = model.set_image(photo)
kind = "sam" if model.networks.sam_id else "felzenszwalb"
results = scene.segment_all(SENTENCES, "full", kind)
figure, axes = plt.subplots(2, len(results) + 1, figsize=(8, 4.2))
show_image(scene.image, axes[0, 0], "photo")
axes[1, 0].set_axis_off()
for (above, below), result in zip(axes.T[1:], results, strict=True):
    show_map(result.word_map, scene.image, above, f'"{result.expression.head}"')
    show_mask(result.mask, photo, below, result.expression.text)
lesson.show("The photo; for each sentence the word map above and the chosen mask below.")

# %% [markdown]
# Above, the word maps; below, what was chosen. If a mask is wrong, go back the way it came (lesson 7): was there a
# proposal that fits? Is the map on the right thing? If not, was the right *word* read? `result.plot()` shows it all.

# %%
nets = model.networks


device, dtype = device_and_dtype()
assert (nets.device.type, nets.sd.unet.dtype) == (device.type, dtype)
print("a CUDA GPU here:", torch.cuda.is_available(), "- networks:", device.type, dtype)

# %% [markdown]
# Why not half everywhere? A GPU has units for 16 bits and moves half the bytes. Many CPUs have none and must convert
# each number there and back. Here is one matrix product in both, on the device that you have:


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
if nets.device.type == "cpu":
    lesson.claim("on this CPU half precision is no gain in time", half > 0.9 * single)

# %% [markdown]
# ## 2 · What half precision does
#
# Sixteen bits: one for the sign, five for the exponent, ten bits for the digits. The largest number is 65504, and the step
# to the next number is about a thousandth of the number itself.

# %% [markdown]
# ### Exercise 9.1 · Predict: ten thousand ones
# **Difficulty** ●●○○○ · **Time** 3 minutes
#
# Start at 0 in half precision and add 1, ten thousand times, one after another. What is the sum? Write a number, then
# run on.
#
# <details><summary>Hint</summary>
#
# From which number on is the step to the next one larger than 1? Ten digits and a leading one make 11 bits.
# </details>

# %% tags=["exercise"]
### BEGIN SOLUTION
guess = 10_000
### END SOLUTION

checks.guess_sum(guess)


# %% tags=["nbval-check-output"]
def h(x):
    return torch.tensor(x, dtype=torch.float16)


total = h(0.0)
for _ in range(10_000):
    total = total + 1
checks.guess_sum.against(int(total))
print("2048 + 1 =", float(h(2048.0) + 1))
print("exp(12)  =", float(h(12.0).exp()))
print("1e-8     =", float(h(1e-8)))

# %% [markdown]
# Each line is a real bug. A sum of many small numbers stops growing. The exponentials of a softmax overflow. And the
# small number that guards a division vanishes. Here is the softmax as books write it:


# %% tags=["nbval-check-output"]
logits = torch.tensor([12.0, 11.0, 3.0], dtype=torch.float16)
naive = logits.exp() / logits.exp().sum()
print("as in books:", naive.tolist())

# %% [markdown]
# ### Exercise 9.2 · Repair: a softmax that overflows
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# Mend it. The input is in half precision, the answer must be too, and no step may leave half precision.
#
# <details><summary>Hint</summary>
#
# The shares do not change if the same number is taken from all logits. Which number makes every exponential harmless?
# </details>


# %% tags=["exercise"]
def softmax_half(logits):
    """logits: (N,) float16, of any size. Returns their shares, (N,) float16."""
    ### BEGIN SOLUTION
    shifted = (logits - logits.max()).exp()
    return shifted / shifted.sum()
    ### END SOLUTION


checks.check_softmax(softmax_half)

# %% tags=["answer"]
tops = torch.linspace(0, 20, 81)
trial = [torch.stack([x, x - 1, x - 9]).half() for x in tops]
figure, ax = plt.subplots(figsize=(5.5, 2.3))
ax.plot(tops, [float(softmax_half(x)[0]) for x in trial], label="yours")
ax.plot(tops, [float((x.exp() / x.exp().sum())[0]) for x in trial], "--", label="as in books")
ax.axvline(np.log(65504), color="k", linewidth=0.8, ls=":")
ax.text(np.log(65504), 0.15, " log 65504", fontsize=8)
ax.set(xlabel="largest of three logits", ylabel="its share", ylim=(0, 1))
ax.legend(loc="lower left")
lesson.show(
    "The share of the largest logit: yours is level; the softmax of the books agrees up to about 11, falls to 0 and then ends, because it is not a number."
)

# %% [markdown]
# PyTorch's own softmax takes the largest logit away, too. But who guards $qk^\top$ itself? `record_attention` computes
# it in float32, whatever the UNet's precision. The word map is stretched in float32, for the same reason:

# %% tags=["nbval-check-output"]
flat = torch.full((2, 2), 0.5, dtype=torch.float16)
eps = torch.tensor(1e-8, dtype=torch.float16)
print("the guard in half precision:  ", float(eps))
print("min-max of a flat map, half:  ", ((flat - flat.min()) / (flat.max() - flat.min() + 1e-8)).flatten().tolist())
print("min-max of a flat map, single:", min_max(flat.float()).flatten().tolist())

# %% [markdown]
# Dividing 0 by 0 gives NaN ([fault 8](../docs/faults.md#fault-8)), and NaN spreads to every score.
#
# Where do our own numbers lie? The lines below show how far the next number is, as a share of the number itself: how
# coarse a format is. The bars show what the UNet computes with on a bundled scene.

# %%
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
x_half = x.clip(max=65000).astype(np.float16)
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
ax.legend(loc="upper right")
lesson.show(
    "Relative gap over size: fp32 lowest, fp16 level from 1e-4 to 65504 and steep below, bf16 level everywhere and higher. Three bars between 1e-3 and 10."
)
lesson.claim(
    "bf16 is eight times as coarse as fp16", torch.finfo(torch.bfloat16).eps == 8 * torch.finfo(torch.float16).eps
)
smallest_normal = torch.finfo(torch.float16).smallest_normal
lows = [float(np.quantile(v.abs().float().cpu(), 0.01)) for v in found.values()]
lesson.claim("all three bars lie right of where fp16 climbs", min(lows) > smallest_normal)

# %% [markdown]
# The fp16 line is level in the middle, climbs where numbers are small, and ends at 65504. bf16 reaches everywhere but
# is eight times coarser. The bars show the middle 98 % of each quantity. All three lie on the level stretch: this
# UNet's numbers suit half precision.
#
# Arithmetic predicts; now measure. We run VAE and UNet in both precisions, on the same picture and noise:

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
top = float((results["half"][2] - results["single"][2]).abs().max())
lesson.claim("no pixel of the word map moves by more than a hundredth of its range", top < 0.01)

# %%
c, c_half = results["single"][2], results["half"][2]
figure, axes = plt.subplots(1, 4, figsize=(9, 2.3))
show_image(scene.image, axes[0], prompt)
show_map(c, None, axes[1], "word map, single")
show_map(c_half, None, axes[2], "word map, half")
drawn = axes[3].imshow(c_half - c, cmap=lesson.DIVERGING, vmin=-top, vmax=top)
axes[3].set_title("half minus single")
axes[3].set_axis_off()
figure.colorbar(drawn, ax=axes[3], shrink=0.8, label="difference in c")
lesson.show(
    "The scene, its word map in single and in half precision, which look the same, and their difference, a few ten-thousandths."
)

# %% [markdown]
# One look at the UNet survives half precision easily: compare the colour bar with the map's own range from 0 to 1. DDIM
# inversion (lesson 2) is harder on it, because each step starts from the rounded result of the last:

# %%
path = {}
for name, cast in (("single", torch.nn.Module.float), ("half", torch.nn.Module.half)):
    unet_ = cast(copy.deepcopy(unet))
    empty = model.empty_prompt.to(unet_.dtype)
    path[name] = invert(scheduler, guided(unet_, empty), scene.latents.to(unet_.dtype), 10)
apart = [
    float((a.float() - b.float()).norm() / b.float().norm()) for a, b in zip(path["half"], path["single"], strict=True)
]
print(
    "relative difference at the start and after 1, 5 and 10 steps:", ", ".join(f"{apart[k]:.1e}" for k in (0, 1, 5, 10))
)
lesson.claim("over ten steps of inversion the difference grows more than tenfold", apart[10] > 10 * apart[0])

# %% [markdown]
# ## 3 · Memory, by arithmetic
#
# Before you rent a GPU, compute. **Weights**: parameters times bytes. A convolution from 320 to 320 channels has a $3
# \times 3$ kernel for each pair, and a bias for each output:

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
# ### Exercise 9.3 · The bytes of attention
# **Difficulty** ●●○○○ · **Time** 5 minutes
#
# Write the formula.
#
# <details><summary>Hint</summary>
#
# How many tokens has the layer? Its matrix has a row and a column for each, and there is one for every head.
# </details>


# %% tags=["exercise"]
def my_attention_bytes(side, heads, factor, size):
    """side: of the picture in pixels; factor: 1 at the latents' size, 2 at half of it; size: bytes of a number."""
    ### BEGIN SOLUTION
    tokens = (side // 8 // factor) ** 2
    return heads * tokens**2 * size
    ### END SOLUTION


checks.check_attention_bytes(my_attention_bytes)

# %% tags=["answer"]
sides = np.array([256, 384, 512, 768, 1024])
figure, ax = plt.subplots(figsize=(8, 3))
for f, style in zip((1, 2, 4), ("o-", "s--", "^:"), strict=True):
    each = [float(my_attention_bytes(int(side), 8, f, 2)) / 2**30 for side in sides]
    ax.loglog(sides, each, style, markersize=4, label=f"self-attention, f = {f}")
ax.loglog(sides, 8 * (sides / 8) ** 2 * 77 * 2 / 2**30, "d-", markersize=4, label="cross-attention (77 words), f = 1")
ax.axhline(15, color="k", lw=0.8)
ax.text(260, 17, "free on a T4 of 16 GB, about 15 GiB", fontsize=8)
ax.set(xlabel="side of the picture, pixels", ylabel="one layer's matrices in half, GiB", ylim=(2e-5, 60))
ax.set_xticks(sides, sides)
ax.minorticks_off()
figure.legend(loc="outside right center")
lesson.show(
    "Memory of one layer over the side of the picture, both axes logarithmic: self-attention rises steeply, cross-attention gently; at 1024 pixels the finest self-attention is at 4 GiB."
)
whole = my_attention_bytes(1024, 8, 1, 2) / my_attention_bytes(512, 8, 1, 2)
lesson.claim("twice the side: 16 times the self-attention", whole == 16)

# %% [markdown]
# Self-attention grows with the fourth power of the side, cross-attention with the second, because 77 tokens stay 77.
# GPUs therefore never write the matrix down: *fused* attention keeps a few rows at a time. But whoever wants to **see**
# attention must write it down. The official code does so at the finest layer, all heads at once ([fault
# 9](../docs/faults.md#fault-9)). We read coarse layers, average heads at once, and refuse what does not fit:

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
# ### Exercise 9.4 · Does it fit?
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# All weights may lie on the GPU at once, or only those of the network in use (`low_memory`). Networks run one after
# another, and a network's activations go when it is done. How much memory is needed at the worst moment?
#
# <details><summary>Hint</summary>
#
# For each of the two modes, list what lies on the GPU while the UNet works, while the VAE works, and so on.
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

# %% tags=["answer"]
saved = []
figure, axes = plt.subplots(1, 2, figsize=(8, 2.9), sharex=True)
for ax, (side, needs) in zip(axes, parts.items(), strict=True):
    names = list(needs)[::-1]
    w, a = np.array([needs[n] for n in names]).T / 1024
    ax.barh(names, w, color=lesson.BLUE, label="weights")
    ax.barh(names, a, left=w, color=lesson.ORANGE, hatch="//", label="activations")
    low, whole = float(my_peak(needs, True)) / 1024, float(my_peak(needs, False)) / 1024
    ax.axvline(low, color="k", lw=0.8, ls="--", label="your peak, low memory")
    ax.axvline(whole, color="k", lw=0.8, label="your peak, all at once")
    saved.append(1 - low / whole)
    print(f"{side:4} px: all on the GPU {whole:.2f} GiB, low-memory mode {low:.2f} GiB")
    ax.set(xlabel="GiB, half precision", title=f"{side} px")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
lesson.show(
    "Bars of weights and activations of five networks at 512 and 1024 pixels; the UNet's bar is the longest in both, a dashed line at its end, a solid line further right."
)
lesson.claim("low-memory mode saves a larger share at 512 pixels than at 1024", saved[0] > saved[1])

# %% [markdown]
# Each bar is one network at work. Low-memory mode pays for the longest bar; otherwise you pay for all the blue parts
# and the longest hatched one. At 1024 pixels activations weigh more, so low memory saves less there. About 1 GiB for
# the GPU's own context comes on top.

# %% [markdown]
# ### Exercise 9.5 · Plan a run
# **Difficulty** ●●●●○ · **Time** 20 minutes
#
# Sentences can share a pass of the UNet, at a price: the activations above are those of *one* sentence, and the UNet's
# grow in proportion to the batch (the other networks' do not). Given the free memory, choose. Keep all weights on the
# GPU if that leaves room for at least one sentence. If not, use low-memory mode. In either mode take the largest batch
# that fits, up to `sentences`. If nothing fits, say so.
#
# <details><summary>Hint</summary>
#
# Write a function "does it fit?" of mode and batch first. All moments of a run must fit, not only the UNet's.
# </details>


# %% tags=["exercise"]
def plan(free, parts, sentences):
    """free: memory; parts: name -> (weights, activations), one of them "UNet". Returns ("all" | "low" | "none", batch)."""

    ### BEGIN SOLUTION
    def fits(mode, batch):
        together = sum(w for w, _ in parts.values())
        for name, (weights, activations) in parts.items():
            held = together if mode == "all" else weights
            if held + activations * (batch if name == "UNet" else 1) > free:
                return False
        return True

    for mode in ("all", "low"):
        batches = [b for b in range(1, sentences + 1) if fits(mode, b)]
        if batches:
            return mode, max(batches)
    return "none", 0
    ### END SOLUTION


checks.check_plan(plan)

# %% tags=["answer"]
memory = np.arange(1, 25, 0.25)
figure, ax = plt.subplots(figsize=(6, 2.5))
for (side, needs), style in zip(parts.items(), ("-", "--"), strict=True):
    plans = [plan(float(1024 * (m - 1)), needs, 16) for m in memory]  # 1 GiB for the GPU's own context
    ax.step(memory, [int(batch) for _, batch in plans], style, where="post", label=f"{side} px")
    low = [m for m, (mode, _) in zip(memory, plans, strict=True) if str(mode).lower() == "low"]
    ax.plot(low, [-0.6 - 0.5 * (side > 512)] * len(low), ".", markersize=3, color=lesson.RED)
ax.set(xlabel="memory of the GPU, GiB", ylabel="sentences in a batch")
ax.legend(title="red dots: low-memory mode")
lesson.show(
    "Largest batch over the GPU's memory for 512 and 1024 pixels: two staircases; red dots below mark where only low-memory mode fits."
)

# %% [markdown]
# More memory, more sentences in a pass, and the steps are wider at 1024 pixels. At one place the staircase of 512
# pixels steps *down*: all weights have just become able to stay, and leave room for fewer sentences than low-memory
# mode did. Is our rule a good one there?

# %% [markdown]
# ## 4 · Low-memory mode
#
# One network is on the GPU, the others wait in the computer's memory. The price: weights travel. Which, and when? Let
# us watch which network is asked for while three sentences are answered one by one, and then together.

# %%
asked = ["the purple dog", "the penguin", "the apple"]


def watch(together):
    """Names of the networks in the order of their use, how often they moved, and the masks."""
    nets = RefDiff.from_preset(PRESET, low_memory=True).networks
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
lesson.show(
    "Two rows of boxes. One by one: vae, then text, unet and clip three times over, ten boxes. Together: vae, text, unet, clip, four boxes."
)

# %% [markdown]
# Every box is one move. Sentence by sentence, text encoder, UNet and CLIP take turns and drive each other off the GPU.
# Together, the text encoder reads all sentences first, then the UNet looks at all of them in one batch, then CLIP
# ranks.

# %% tags=["nbval-check-output"]
size = {
    "vae": weights["VAE"],
    "text_encoder": weights["text encoder"],
    "unet": weights["UNet"],
    "clip": weights["CLIP"],
}
counted = {}
for name, (used, placed, _) in runs.items():
    moves = [after for before, after in pairwise([None, *used]) if after != before]
    counted[name] = len(moves)
    assert placed == 2 * len(moves) - 1  # the library brings each one in, and all but the last one out
    print(
        f"{name:10} {len(moves):2d} moves; on SD 1.5 that is {sum(size[m] for m in moves) / 1024:.1f} GiB onto the GPU"
    )
agree = all(np.array_equal(a, b) for a, b in zip(runs["one by one"][2], runs["together"][2], strict=True))
lesson.claim(
    "together, the masks are the same, with fewer than half of the moves",
    agree and 2 * counted["together"] < counted["one by one"],
)

# %% [markdown]
# If the link to the GPU carries 10 GiB a second, divide by ten and you have the seconds that low memory costs. So use
# it where you must, and then ask all your sentences at once.

# %% [markdown]
# ## 5 · Weights and caches
#
# The toy is bundled. The real weights come from the hub, at pinned commits, as safetensors only (a pickle can run
# code). `refdiff-lite download sd15` in a terminal says the sizes first; if it breaks off, run it again: whole files are kept.
# Without it, `from_preset("sd15")` downloads at its first call.

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
# Lesson 8 shows what happens otherwise: with too short a key, the published evaluation answers every sentence of an
# object with the first one's mask ([fault 1](../docs/faults.md#fault-1)).

# %% [markdown]
# ## 6 · What changes from toy to sd15
#
# Not a line of the pipeline. But sizes, layers and constants do. Nothing below is typed in: both columns are asked for.


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
# Two lines deserve a second look. Noise: the schedule is the same, the step is not, because the toy's was chosen on its
# own val scenes. And `alpha`: a weight means nothing without the spread of the scores that it weighs (lesson 7).
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
lesson.show(
    "The same scene under four grids: the toy's 16 by 16 and 8 by 8, Stable Diffusion's 16 by 16 at 512 pixels and 32 by 32 at 1024."
)
lesson.claim(
    "at 512 pixels SD's layers are as coarse as the toy's finest",
    plans[f"sd15, {PRESETS['sd15'].side} px"] == ["16×16"] and "16×16" in columns[0]["grids read"],
)

# %% [markdown]
# Each cell has one attention value; everything finer in a word map is interpolated. What Stable Diffusion has more of
# is not resolution but knowledge. The official code doubles the side to halve the cells, and pays for it with the
# fourth power.
#
# And the **tokenizer**. The toy's vocabulary was learned from its own captions, CLIP's from the web. Its real one comes
# with open_clip, so we may look:

# %% tags=["nbval-check-output"]
big = open_clip.get_tokenizer("ViT-B-16")
for sentence in ("the purple dog", "the strawberry", "a man on a skateboard"):
    pieces = [big.decoder[i].removesuffix("</w>") for i in big.encode(sentence)]
    print(f"toy   {' | '.join(p.removesuffix('</w>') for p in small.tokenize(sentence))}")
    print(f"sd15  {' | '.join(pieces)}")
    one_each = len(pieces) == len(sentence.split())
    lesson.claim("CLIP's vocabulary has a piece for each word", one_each)

# %% [markdown]
# A word of its own world is one piece to the toy, and a strange word falls to bits. CLIP's vocabulary knows all of
# them. Splitting a word is why lesson 3 finds a word's *last* piece by its place in the text.

# %% [markdown]
# ## 7 · Shapes
#
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

# %% [markdown]
# ## 8 · Time, measured properly
#
# A GPU works on its own. A call only queues the work and returns, so if you read the clock then, you time the queue.
# And the first pass is slower than all others, while kernels are chosen and memory is fetched.

# %% [markdown]
# ### Exercise 9.6 · The stopwatch
# **Difficulty** ●●●○○ · **Time** 10 minutes
#
# `new_gpu()` gives a pretended GPU with `run()`, `synchronise()` and `clock()`. How many seconds does one warm pass
# take? Use `repeats` passes.
#
# <details><summary>Hint</summary>
#
# What must have happened before you read the clock, the first time and the second time?
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
# Now the real thing: does it pay to ask several sentences at once? First of all, they must give the same maps.

# %%
many = [f"{article} {thing}" for article in ("a", "the") for thing in ("dog", "penguin", "apple", "cat")]
together = scene.unet_pass(many)
for prompt, batched in zip(many, together, strict=True):
    alone = scene.unet_pass([prompt])[0]["cross"]
    for name, expected in alone.maps.items():
        torch.testing.assert_close(batched["cross"].maps[name], expected, atol=2e-3, rtol=0)

# %%
sizes = [1, 2, 4, 8]
passes = [seconds(lambda: scene.unet_pass(["dog"]), repeats=1) for _ in range(6)]
each = [seconds(lambda n=n: scene.unet_pass(many[:n]), repeats=3) / n for n in sizes]
figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 2.5))
left.bar(range(1, 7), 1000 * np.array(passes))
left.set(xlabel="measurement", ylabel="milliseconds", title="the same pass, six times")
right.plot(sizes, 1000 * np.array(each), "o-")
right.set(xlabel="sentences in a batch", ylabel="milliseconds per sentence", title="batching", xticks=sizes, ylim=0)
lesson.show(
    "Left: six bars, the time of one and the same pass, of different heights. Right: milliseconds per sentence over the batch size."
)

# %% [markdown]
# Left: the same work never takes quite the same time, so take a median, and compare things *in turn*, as a ratio.
# Right: a pass is many small operations, and starting each costs time whatever its size. A batch shares that cost, so
# time per sentence should fall until the machine is full. Does it, on yours? (Nothing here is checked: times depend on
# what else the machine does.)

# %% [markdown]
# <details><summary><b>What can go wrong</b></summary>
#
# - **CUDA out of memory.** In this order: `low_memory=True`; SAM base instead of huge; a smaller `side_factor`; restart
#   the runtime, since a notebook holds on to old results.
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
# Answer from memory, then unfold.
#
# 1. Name three things that half precision breaks, and what the library does about them.
# 2. The side of the picture doubles. By which factor does a layer's self-attention grow? And cross-attention?
# 3. Why must you synchronise before you read the clock?
#
# <details><summary>Answers</summary>
#
# 1. Long sums, exponentials above 11, and small guards such as 1e-8. It computes logits, maps and scores in float32.
# 2. By 16, and by 4.
# 3. A call to a GPU only queues the work. Without waiting, you time the queue.
# </details>
#
# **Open question.** Your GPU has 8 GiB, and you want maps at 1024 pixels for 10,000 sentences about 1,000 photos. What
# would you keep on the GPU, in which order would you work, and what would you store? Estimate the traffic, and say
# which of your numbers you trust least.
#
# All of this was counted, and rehearsed at full size with random weights. With the real weights *you* may be first.
# Tell us what you find.
#
# **References.** Micikevicius et al., *Mixed Precision Training* ([arXiv
# 1710.03740](https://arxiv.org/abs/1710.03740)). Dao et al., *FlashAttention* ([arXiv
# 2205.14135](https://arxiv.org/abs/2205.14135)). Rombach et al., *Latent Diffusion* ([arXiv
# 2112.10752](https://arxiv.org/abs/2112.10752)). Kirillov et al., *Segment Anything* ([arXiv
# 2304.02643](https://arxiv.org/abs/2304.02643)). In the code:
# [networks/loading.py](../refdiff_lite/networks/loading.py), [networks/hub.py](../refdiff_lite/networks/hub.py),
# [masks.py](../refdiff_lite/masks.py), [bench_memory.py](../benchmarks/bench_memory.py). Symbols: [the
# glossary](../docs/glossary.md).
