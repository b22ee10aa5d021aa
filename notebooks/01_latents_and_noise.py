# ---
# title: Latents and noise
# minutes: 80
# cpu: 0.2
# goals:
#   - measure what the VAE keeps of a picture and what it loses
#   - add noise of any strength in one line, and plot the schedule that sets the strength
#   - take one denoising step by hand, then paint a picture with a loop of ten lines
#   - explain guidance, and show what it does to the pictures
# ---
# %% tags=["setup"]
from refdiff_lite import lesson

PRESET = "toy"
lesson.start(PRESET)

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from skimage.color import rgb2hsv

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.attention import resize
from refdiff_lite.checks import latents_and_noise as checks
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.metrics import psnr
from refdiff_lite.files import data_dir
from refdiff_lite.inversion import guided
from refdiff_lite.latents import add_noise, alpha_bar, ddim_step, ddim_timesteps, decode
from refdiff_lite.viz import show_image

# %% [markdown]
# Ref-Diff asks a diffusion model about a picture that already exists. To ask, it must put the picture into the form
# that the model was trained on: a small array with noise added. In this lesson you make that array, add the noise,
# and take it away again.

# %%
model = RefDiff.from_preset(PRESET)
vae, unet, scheduler = model.networks.sd.vae, model.networks.sd.unet, model.networks.scheduler
sample = load_toyref("val", limit=11)[10]
scene = model.set_image(sample.path)
x0 = scene.latents

# %% [markdown]
# ## 1 · The latents: a picture made small
#
# Stable Diffusion does not work on pixels. A **variational autoencoder** (VAE) first squeezes each block of 8 × 8
# pixels into four numbers. These numbers, the *latents* $x_0$, are all that the rest of the model ever sees.

# %%
pixels, numbers = 3 * (8 * x0.shape[2]) * (8 * x0.shape[3]), x0.numel()
print(f"picture: {pixels} numbers, latents {tuple(x0.shape)}: {numbers}, {pixels // numbers} times fewer")

# %%
image, back = scene.image, decode(vae, x0)
figure, axes = plt.subplots(1, 6, figsize=(9, 1.8))
show_image(image, axes[0], "picture")
for channel, ax in enumerate(axes[1:5]):
    ax.imshow(x0[0, channel].float().cpu(), cmap=lesson.DIVERGING, vmin=-3, vmax=3)
    ax.set_title(f"latent channel {channel}")
    ax.set_axis_off()
show_image(back, axes[5], "decoded")
lesson.show("A picture of two dogs, a penguin and an apple; its four latent channels, coarse; and the decoded picture.")

# %% [markdown]
# Red is positive, blue negative, white zero; full colour means 3 or more. The latents are still a kind of picture.
# Every thing stands out where it stood before, but the grid is eight times coarser, and so attention maps will be
# coarse too. The decoded picture is softer than the original: the dogs have lost their eyes.

# %%
cells = resize(torch.from_numpy(sample.masks).float(), x0.shape[2:])
latents, ground = x0[0].float().cpu(), cells.sum(0) < 0.05
spread = latents[:, ground].std(1)
contrast = [(latents[:, cell > 0.6].mean(1) - latents[:, ground].mean(1)).abs() / spread for cell in cells]
for name, values in zip(sample.categories, contrast, strict=True):
    print(f"{name:8}", "  ".join(f"{v:4.1f}" for v in values.tolist()))
lesson.claim(
    "every thing is over twice the ground's spread away from it in some channel", min(c.max() for c in contrast) > 2
)

# %% [markdown]
# How much softer is the decoded picture? **PSNR** puts a number on it: the squared peak value over the mean squared
# error, in decibels.
#
# $$\mathrm{PSNR} = 10 \log_{10} \frac{255^2}{\mathrm{mean}\,(a - b)^2}$$
#
# Toy numbers first. If every pixel is off by 1, PSNR is $10 \log_{10} 255^2 = 48$ dB; if by 10, it is 20 dB less.

# %% tags=["nbval-check-output"]
grey = np.full((4, 4, 3), 100, np.uint8)
for error in (1, 10, 100):
    print(f"every pixel off by {error:3d}: {psnr(grey, grey + np.uint8(error)):5.1f} dB")

# %% [markdown]
# ### Exercise 1.1 · Repair: a PSNR that flatters
# **Difficulty** ●●○○○ · **Time** 8 minutes
#
# This version follows the formula, yet it gives two pictures of pure noise 28 dB, which would be good. Find the fault
# and repair it.
#
# ```python
# def my_psnr(a, b):
#     return 10 * np.log10(255**2 / np.mean((a - b) ** 2))
# ```
#
# <details><summary>Hint</summary>
#
# The pictures are `uint8`. What is `np.uint8(3) - np.uint8(5)`? And what is the square of 17 in `uint8`?
# </details>


# %% tags=["exercise"]
def my_psnr(a, b):
    """PSNR in dB of two (H, W, 3) uint8 pictures."""
    ### BEGIN SOLUTION
    error = np.square(a.astype(float) - b.astype(float)).mean()
    return 10 * np.log10(255**2 / error)
    ### END SOLUTION


checks.check_psnr(my_psnr)

# %% tags=["answer"]
rng = np.random.default_rng(0)
noise_a, noise_b = rng.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
flattering = 10 * np.log10(255**2 / np.mean((noise_a - noise_b) ** 2))
print(f"two pictures of noise: the faulty version says {flattering:.1f} dB, yours {my_psnr(noise_a, noise_b):.1f} dB")

# %%
resized = np.array(Image.fromarray(image).resize(back.shape[1::-1]))
print(f"through the VAE and back: {psnr(resized, back):.1f} dB")
measures = json.loads((data_dir() / "models" / "toy" / "measures.json").read_text())
whole = measures["VAE reconstruction, PSNR dB"]
print(f"the toy VAE on {whole['n']} test scenes: {whole['value']:.1f} dB ({whole['low']:.1f} to {whole['high']:.1f})")
print(f"standard deviation of the latents: {float(x0.float().std()):.2f}")
lesson.claim("the decoded picture is between poor and excellent: 20 to 40 dB", 20 < psnr(resized, back) < 40)
lesson.claim("the latents' standard deviation is near 1", 0.7 < x0.float().std() < 1.4)

# %% [markdown]
# As a rule of thumb, 20 dB is poor, 30 is good, and at 40 you hardly see a difference. The last line is about
# **scaling**. The VAE's raw numbers are multiplied by `vae.config.scaling_factor`, chosen so that the latents of many
# pictures have a standard deviation near 1. The noise that comes next has exactly 1, so the two can be weighed
# against each other.

# %% [markdown]
# ## 2 · Forward noise
#
# Take the latents, shrink them, and fill up with normal noise $n$, so that the variance stays what it was:
#
# $$x_t = \sqrt{\bar\alpha_t}\; x_0 + \sqrt{1 - \bar\alpha_t}\; n$$
#
# $\bar\alpha_t$ is the share of the picture's variance that is left at timestep $t$. By hand, on four numbers:

# %% tags=["nbval-check-output"]
toy_x0, toy_noise = torch.tensor([1.0, -1.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, -1.0, 0.5])
for a in (1.0, 0.64, 0.0):
    x = a**0.5 * toy_x0 + (1 - a) ** 0.5 * toy_noise
    print(f"a = {a:4.2f}: {a**0.5:.1f} × picture + {(1 - a) ** 0.5:.1f} × noise =", [round(v, 1) for v in x.tolist()])

# %% [markdown]
# The library's version does the same for any latents and any timestep:

# %%
noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0)
t = 300
a = alpha_bar(scheduler, t)
by_hand = a**0.5 * x0 + (1 - a) ** 0.5 * noise
torch.testing.assert_close(by_hand, add_noise(scheduler, x0, noise, t))

# %%
times = [0, 51, 101, 301, 601, 951]
figure, axes = plt.subplots(1, len(times), figsize=(9, 1.8))
for ax, t in zip(axes, times, strict=True):
    show_image(decode(vae, add_noise(scheduler, x0, noise, t)), ax, f"t = {t}, a = {alpha_bar(scheduler, t):.2f}")
lesson.show(
    "The decoded picture with more and more noise. At t = 301 all four things can be made out, at 601 hardly one."
)

# %% [markdown]
# The same noise each time, stronger and stronger. One jump leads to any $t$; no loop is needed. Note how long you can
# still make out the objects. At $t = 101$, where the paper reads attention, the picture is all there, and so it is at
# $t = 51$, which was chosen for the toy networks. At 301 the colours still give all four away; at 601 you have to
# guess.

# %%
paper_t = ddim_timesteps(scheduler, RefDiffConfig.paper().num_steps)[RefDiffConfig.paper().noise_step]
toy_t = ddim_timesteps(scheduler, RefDiffConfig.toy().num_steps)[RefDiffConfig.toy().noise_step]
print(
    f"the paper's timestep is {paper_t}, the toy preset's {toy_t}, this model's {scene.timesteps[model.config.noise_step]}"
)
assert (paper_t, toy_t) == (101, 51)
lesson.claim("at 301 the picture outweighs the noise, at 601 the noise the picture",
             alpha_bar(scheduler, 301) > 0.5 > alpha_bar(scheduler, 601))  # fmt: skip

# %% [markdown]
# ### The schedule
#
# Who sets $\bar\alpha_t$? In training, noise is thought of as added in 1000 small steps. Step $t$ takes away a share
# $\beta_t$ of the variance, so $\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)$. Stable Diffusion starts at
# $\beta = 0.00085$, ends at $0.012$, and spaces the **square roots** of the betas evenly.

# %% [markdown]
# ### Exercise 1.2 · The schedule
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# Compute $\bar\alpha_t$ for all steps.
#
# <details><summary>Hint</summary>
#
# `torch.linspace` makes evenly spaced numbers. `torch.cumprod(x, 0)` multiplies them up.
# </details>


# %% tags=["exercise"]
def schedule(start, end, steps):
    """Share of the variance left after each step, a (steps,) tensor; start, end: first and last beta."""
    ### BEGIN SOLUTION
    betas = torch.linspace(start**0.5, end**0.5, steps) ** 2
    return torch.cumprod(1 - betas, 0)
    ### END SOLUTION


checks.check_schedule(schedule)

# %% tags=["answer"]
mine = schedule(0.00085, 0.012, 1000)
figure, ax = plt.subplots(figsize=(4.5, 2.2))
ax.plot(scheduler.alphas_cumprod, color=lesson.SKY, linewidth=5, label="the model's")
ax.plot(mine, "--", color=lesson.BLACK, label="yours")
ax.set(xlabel="timestep t", ylabel=r"$\bar\alpha_t$")
ax.legend()
lesson.show("The model's schedule and yours, one on top of the other, falling from 1 to nearly 0.")

# %%
a = scheduler.alphas_cumprod
crossing = int((a < 0.5).int().argmax())
figure, ax = plt.subplots(figsize=(5.5, 2.6))
ax.plot(a.sqrt(), label=r"picture, $\sqrt{\bar\alpha_t}$")
ax.plot((1 - a).sqrt(), "--", label=r"noise, $\sqrt{1-\bar\alpha_t}$")
ax.axvline(paper_t, color=lesson.RED, linestyle=":", label=f"where the paper reads, t = {paper_t}")
ax.axvline(toy_t, color=lesson.PINK, linestyle=":", label=f"where the toy preset reads, t = {toy_t}")
ax.set(xlabel="timestep t", ylabel="weight", ylim=(0, 1.02), xlim=(0, 999))
ax.legend(loc="center right")
lesson.show(
    "Weight of the picture falls, weight of the noise rises; they cross near t = 350. Both reading points lie far left."
)

# %%
for t in (0, 101, 500, 999):
    print(f"t = {t:3d}: {100 * float(a[t]):5.1f} % of the variance is picture")
lesson.claim("the weights cross about a third of the way", 300 < crossing < 400)
lesson.claim("at the end half a percent of the variance is picture, not nothing", 0.003 < a[999] < 0.007)

# %% [markdown]
# The two weights cross about a third of the way along; beyond that, noise has the upper hand. Even at the end about
# half a percent of the variance is picture. The dotted lines are where Ref-Diff asks its question: a little noise, so
# that the UNet has something to do, and mostly picture, so that its answer is about *this* picture.

# %% [markdown]
# ## 3 · One denoising step
#
# The UNet is trained on one task: given $x_t$, $t$ and a text, **predict the noise** $\epsilon$. From that prediction
# the clean latents follow: solve the equation above for $x_0$.
#
# $$\hat x_0 = \frac{x_t - \sqrt{1 - \bar\alpha_t}\;\epsilon}{\sqrt{\bar\alpha_t}}$$

# %%
text, empty = model.encode_prompt(["two dogs, a penguin and an apple"]), model.encode_prompt([""])
predict = guided(unet, text)

figure, axes = plt.subplots(2, 4, figsize=(7, 3.8))
likeness = {}
for column, t in zip(axes.T, (51, 301, 601, 951), strict=True):
    x = add_noise(scheduler, x0, noise, t)
    guess = decode(vae, ddim_step(scheduler, x, predict(x, t), t, -1))
    likeness[t] = psnr(guess, back)
    show_image(decode(vae, x), column[0], f"$x_t$, t = {t}")
    show_image(guess, column[1], f"$\\hat x_0$, {likeness[t]:.0f} dB")
lesson.show(
    "Noised pictures above, the UNet's guess of the clean one below: good at t = 51, the dogs mere blobs at 601, fog at 951."
)

# %%
values = list(likeness.values())
lesson.claim("the more noise, the worse the guess", values == sorted(values, reverse=True))

# %% [markdown]
# The decibels compare $\hat x_0$ with the decoded original. With little noise the guess is nearly the picture. At 601
# things are still in their places, but the brown dog has become a pink blob, and a spot appears that was never there.
# With almost only noise left the network cannot know what was there, and answers with something like the mean of all
# that might have been: fog. One step is not enough.

# %% [markdown]
# So take the guess, but do not go all the way. Put the *same* predicted noise back on, in the measure that suits a
# slightly lower level $t'$. You are now on the picture's path, one step closer to it. This is a **DDIM step**. It
# draws no random numbers.

# %% [markdown]
# ### Exercise 1.3 · A DDIM step
# **Difficulty** ●●●○○ · **Time** 10 minutes
#
# Write it from the two equations that you have. `a` and `to` are the two values of $\bar\alpha$.
#
# <details><summary>Hint</summary>
#
# Two lines, one for each sentence above: the guess $\hat x_0$, then forward noise.
# </details>


# %% tags=["exercise"]
def my_step(x, noise, a, to):
    """From latents x at level a to latents at level `to`, along the predicted noise."""
    ### BEGIN SOLUTION
    guess = (x - (1 - a) ** 0.5 * noise) / a**0.5
    return to**0.5 * guess + (1 - to) ** 0.5 * noise
    ### END SOLUTION


checks.check_step(my_step)

# %% [markdown]
# The library's `ddim_step` agrees with diffusers' own scheduler. Yours is used in the next cell: many steps, from
# pure noise to a picture.

# %%
t, to = ddim_timesteps(scheduler, 20)[10], ddim_timesteps(scheduler, 20)[9]
x = add_noise(scheduler, x0, noise, t)
epsilon = predict(x, t)
theirs = scheduler.step(epsilon, t, x, eta=0.0).prev_sample
torch.testing.assert_close(ddim_step(scheduler, x, epsilon, t, to), theirs, atol=2e-3, rtol=2e-3)
print("20 DDIM steps visit", ddim_timesteps(scheduler, 20)[:4], "…", ddim_timesteps(scheduler, 20)[-1])

# %% tags=["answer"]
drive = guided(unet, model.encode_prompt(["a yellow star"]), 5.0, empty)
x = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1)).to(x0)
mine = ddim_timesteps(scheduler, 20)[::-1]
for t, to in zip(mine, [*mine[1:], -1], strict=True):
    x = my_step(x, drive(x, t), alpha_bar(scheduler, t), alpha_bar(scheduler, to))
show_image(decode(vae, x), title="a yellow star, painted by your step").figure.set_size_inches(2.2, 2.2)
lesson.show("A picture painted by your own DDIM step, with the prompt: a yellow star.")

# %% [markdown]
# ## 4 · Many steps: painting
#
# The loop again, with the library's step, and this time we keep every guess of the clean picture on the way.

# %%
predict = guided(unet, model.encode_prompt(["a red car"]), 5.0, empty)
x = torch.randn(x0.shape, generator=torch.Generator().manual_seed(4)).to(x0)
times = ddim_timesteps(scheduler, 20)[::-1]
guesses = []
for t, to in zip(times, [*times[1:], -1], strict=True):
    epsilon = predict(x, t)
    guesses.append(decode(vae, ddim_step(scheduler, x, epsilon, t, -1)))  # how it would end if we stopped here
    x = ddim_step(scheduler, x, epsilon, t, to)

# %%
shown = [0, 3, 6, 9, 14, 19]
figure, axes = plt.subplots(1, len(shown), figsize=(9, 1.8))
for ax, i in zip(axes, shown, strict=True):
    show_image(guesses[i], ax, f"guess at t = {times[i]}")
lesson.show(
    "Guesses on the way: a red blob, then a car's outline, then windows and wheels; a small yellow car joins it."
)


# %%
def coarse_and_fine(picture):
    """A picture as the means of 8 × 8 blocks, and the rest."""
    n = picture.shape[0] // 8
    blocks = picture.astype(float).reshape(8, n, 8, n, 3).mean((1, 3)).repeat(n, 0).repeat(n, 1)
    return blocks, picture - blocks


final = coarse_and_fine(guesses[-1])
errors = np.array([[np.square(p - f).mean() for p, f in zip(coarse_and_fine(g), final, strict=True)] for g in guesses])
half = [times[int((e < e[0] / 2).argmax())] for e in errors.T]
print(f"half of the coarse error is gone at t = {half[0]}, half of the fine error at t = {half[1]}")
lesson.claim("coarse things are decided at higher t than fine ones", half[0] > half[1])

# %% [markdown]
# Read the row from left to right: first place and colour, then the outline, details last. Coarse things are decided
# at high $t$, fine ones at low $t$. Nobody asked for the second, yellow car. Our prompt says what is in the picture,
# not what else must be absent, and ToyRef's pictures hold two to five things.

# %% [markdown]
# ### Exercise 1.4 · Predict: when do words matter?
# **Difficulty** ●○○○○ · **Time** 3 minutes
#
# The UNet predicts the noise of ToyRef's test scenes twice: once with the right caption, once with another scene's.
# By how much does the right caption reduce the error? Where is it worth most: (a) at low $t$, where the picture is
# clear; (b) in the middle; (c) at high $t$, where the picture is gone?
#
# <details><summary>Hint</summary>
#
# A caption helps if the picture does not already say the same, and if there is something left to improve.
# </details>

# %% tags=["exercise"]
### BEGIN SOLUTION
guess = "c"
### END SOLUTION

checks.guess_caption(guess)

# %%
levels = [100, 300, 500, 700, 900]
rows = [measures[f"UNet, gain of the right caption at t = {t}"] for t in levels]
gain = 100 * np.array([[r["value"], r["low"], r["high"]] for r in rows]).T
checks.guess_caption.against("abbbc"[int(gain[0].argmax())])
figure, ax = plt.subplots(figsize=(4.5, 2.4))
ax.errorbar(levels, gain[0], yerr=[gain[0] - gain[1], gain[2] - gain[0]], marker="o", capsize=3)
ax.axhline(0, color="grey", linewidth=0.8)
ax.set(xlabel="timestep t", ylabel="error saved, %", title="what the right caption is worth to the toy UNet")
lesson.show("Error saved by the right caption, with intervals: 7 % at t = 100, 24 % at 500, 5 % at 900.")

# %%
lesson.claim(
    "it is worth most at 500; no interval of another level reaches that one's", gain[1][2] > np.delete(gain[2], 2).max()
)
lesson.claim("it is worth something everywhere", gain[1].min() > 0)

# %% [markdown]
# At low $t$ the picture itself says almost everything, and the caption adds little. In the middle it helps most. At
# the far end even the best guess is poor, whatever the caption. This is a dilemma for Ref-Diff: words matter more
# where the picture is noisier, but a noisy picture is no longer *the* picture. Lesson 3 measures where attention is
# best read.

# %% [markdown]
# ## 5 · Guidance
#
# "A red car" taken at face value often gives a weak car. **Classifier-free guidance** asks the UNet twice, with the
# prompt and with an empty one, and goes further in the direction in which the two differ: $w$ times as far as from
# the empty prompt's prediction to the prompt's own. Here on plain numbers, 0.2 without the prompt and 0.5 with it:

# %% tags=["nbval-check-output"]
for w, found in ((0, 0.2), (1, 0.5), (3, 1.1), (7.5, 2.45)):
    print(f"w = {w:3}: {found:.2f}")

# %% [markdown]
# ### Exercise 1.5 · Guidance
# **Difficulty** ●○○○○ · **Time** 5 minutes
#
# Write it for two predictions of the noise.
#
# <details><summary>Hint</summary>
#
# Check both ends: `w = 0` must give the empty prompt's prediction, and `w = 1` the prompt's own.
# </details>


# %% tags=["exercise"]
def my_guidance(empty, prompt, w):
    """Guided prediction of the noise from the two predictions."""
    ### BEGIN SOLUTION
    return empty + w * (prompt - empty)
    ### END SOLUTION


checks.check_guidance(my_guidance)


# %%
def paint(prompt, w, seeds=(0, 1, 2), steps=16):
    """Pictures of a prompt, one per seed."""
    n = len(seeds)
    predict = guided(unet, model.encode_prompt([prompt] * n), w, empty.repeat(n, 1, 1))
    x = torch.cat([torch.randn(x0.shape, generator=torch.Generator().manual_seed(s)) for s in seeds]).to(x0)
    times = ddim_timesteps(scheduler, steps)[::-1]
    for t, to in zip(times, [*times[1:], -1], strict=True):
        x = ddim_step(scheduler, x, predict(x, t), t, to)
    return [decode(vae, row[None]) for row in x]


painted = {w: paint("a green frog", w) for w in (1, 4, 15)}
figure, axes = plt.subplots(3, 3, figsize=(5, 5.2))
for row, (w, pictures) in zip(axes, painted.items(), strict=True):
    for ax, picture in zip(row, pictures, strict=True):
        show_image(picture, ax, f"w = {w}")
lesson.show(
    "Three pictures for each w. At 1: odd blobs in several colours. At 4: some frogs. At 15: bright green frogs nearly everywhere."
)


# %%
def green(picture):
    """Share of the pixels that are clearly green."""
    rest = np.maximum(picture[..., 0], picture[..., 2]).astype(int)
    return float((picture[..., 1].astype(int) - rest > 60).mean())


greens = [100 * np.mean([green(p) for p in pictures]) for pictures in painted.values()]
colourful = [float(np.mean([rgb2hsv(p)[..., 1].mean() for p in pictures])) for pictures in painted.values()]
print("green pixels, %: ", [round(g, 1) for g in greens], "  mean saturation:", [round(c, 2) for c in colourful])
lesson.claim("more guidance, more green", greens == sorted(greens))
lesson.claim("the strongest guidance gives the most saturated colours", max(colourful) == colourful[2])

# %% [markdown]
# Each column starts from the same noise. Without guidance ($w = 1$) the prompt is one wish among many: hardly a frog,
# and other things turn up. With more, the pictures become greener and more frog-like. At $w = 15$ nearly everything
# is a frog, in glaring colours. One often reads that such a strong guidance breaks the shapes; here it makes them,
# because our UNet alone hardly follows the prompt.
#
# Ref-Diff paints nothing, so the paper needs no guidance. The official code uses $w = 9$ all the same, on the
# attention maps.

# %% [markdown]
# ### Exercise 1.6 · A step with some fresh noise
# **Difficulty** ●●●●○ · **Time** 25 minutes
#
# A DDIM step puts the old, predicted noise back. One can also replace part of it by fresh noise $z$. Choose how much:
# $\sigma$ is the standard deviation of the fresh part. Write the step so that the result has exactly the noise level
# that belongs to `to`, for any $\sigma$ that leaves room.
#
# <details><summary>Hint</summary>
#
# The predicted and the fresh noise are independent, each with variance 1. How do the variances of independent things
# add?
# </details>


# %% tags=["exercise"]
def my_noisy_step(x, noise, a, to, sigma, z):
    """From level a to level `to`; the fresh noise z takes part with standard deviation sigma."""
    ### BEGIN SOLUTION
    guess = (x - (1 - a) ** 0.5 * noise) / a**0.5
    return to**0.5 * guess + (1 - to - sigma**2) ** 0.5 * noise + sigma * z
    ### END SOLUTION


checks.check_noisy_step(my_noisy_step)

# %% [markdown]
# With it, the same starting noise becomes a different picture each time. Below, one start, and three different
# streams of fresh noise.

# %% tags=["answer"]
drive = guided(unet, model.encode_prompt(["a red car"]), 5.0, empty)
figure, axes = plt.subplots(1, 3, figsize=(6, 2.2))
for seed, ax in enumerate(axes):
    fresh = torch.Generator().manual_seed(seed)
    x = torch.randn(x0.shape, generator=torch.Generator().manual_seed(4)).to(x0)
    mine = ddim_timesteps(scheduler, 20)[::-1]
    for t, to in zip(mine, [*mine[1:], -1], strict=True):
        here, there = alpha_bar(scheduler, t), alpha_bar(scheduler, to)
        sigma = ((1 - there) / (1 - here) * (1 - here / there)) ** 0.5
        x = my_noisy_step(x, drive(x, t), here, there, sigma, torch.randn(x0.shape, generator=fresh).to(x0))
    show_image(decode(vae, x), ax, f"fresh noise, seed {seed}")
lesson.show("Three pictures of a red car from one starting noise, with different fresh noise on the way.")

# %% [markdown]
# <details><summary><b>What can go wrong</b></summary>
#
# - **The scaling factor.** 0.18215 is Stable Diffusion 1.5's. Other VAEs have others: read it from `vae.config`.
# - **A hidden die.** `vae.encode(x).latent_dist.sample()` draws noise. Take `.mode()`, as `encode` does, and results
#   repeat. The official code samples, without a seed ([fault 7](../docs/faults.md#fault-7)).
# - **`alphas_cumprod` is $\bar\alpha$**, already the product. If you square it, or forget the root, you still get
#   pictures, only bad ones.
# - **The last step** goes to $\bar\alpha = $ `final_alpha_cumprod`. Index -1 of the table is the other end:
# </details>

# %%
print(f"clean end {alpha_bar(scheduler, -1):.4f}, the table's last entry {float(scheduler.alphas_cumprod[-1]):.4f}")

# %% [markdown]
# ## Recap
#
# Answer from memory, then open.
#
# <details><summary>What is a latent, and what does it cost?</summary>
#
# Four numbers for each block of 8 × 8 pixels. What the VAE drops, nobody gets back.
# </details>
# <details><summary>How do you get from a prediction of the noise to a guess of the clean picture?</summary>
#
# Solve the equation of forward noise for $x_0$.
# </details>
# <details><summary>What does a DDIM step do after that guess, and why can it be turned round?</summary>
#
# It puts the same predicted noise back, in the measure of another level. Nothing random is in it. Lesson 2 turns it
# round.
# </details>
# <details><summary>What does guidance do, in one sentence?</summary>
#
# It goes further in the direction in which the prompt changes the prediction.
# </details>
#
# **Open question.** A mask's outline can be no finer than what some stage of the method sees. Is it the VAE's loss or
# the coarse grid of the latents that limits Ref-Diff? Devise an experiment that tells the two apart.
#
# **References.** Ho et al., *Denoising Diffusion Probabilistic Models* ([arXiv
# 2006.11239](https://arxiv.org/abs/2006.11239)). Song et al., *Denoising Diffusion Implicit Models* ([arXiv
# 2010.02502](https://arxiv.org/abs/2010.02502)). Rombach et al., *Latent Diffusion* ([arXiv
# 2112.10752](https://arxiv.org/abs/2112.10752)). Ho and Salimans, *Classifier-Free Diffusion Guidance* ([arXiv
# 2207.12598](https://arxiv.org/abs/2207.12598)). In the code: [`latents.py`](../refdiff_lite/latents.py).
