# ---
# title: Latents and noise
# minutes: 50
# cpu: 1
# gpu: 2
# goals:
#   - measure what the VAE keeps of a picture and what it loses
#   - add noise of any strength in one line, and plot the schedule that sets the strength
#   - take one denoising step by hand, then paint a picture with a loop of ten lines
#   - explain guidance, and see when it is too much
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

from refdiff_lite import RefDiff
from refdiff_lite.checks import latents_and_noise as checks
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.metrics import psnr
from refdiff_lite.files import data_dir
from refdiff_lite.inversion import guided
from refdiff_lite.latents import add_noise, alpha_bar, ddim_step, ddim_timesteps, decode
from refdiff_lite.viz import show_image

# %% [markdown]
# Ref-Diff asks a diffusion model about a picture that already exists. To ask, it must put the picture into the form
# that the model was trained on: a small array, with noise added. This lesson makes that array, adds that noise, and
# takes it away again.

# %%
model = RefDiff.from_preset(PRESET)
vae, unet, scheduler = model.networks.sd.vae, model.networks.sd.unet, model.networks.sd.scheduler
sample = load_toyref("val", limit=11)[10]
scene = model.set_image(sample.path)
x0 = scene.latents

# %% [markdown]
# ## 1 · The latents: a picture made small
#
# Stable Diffusion does not work on pixels. A **variational autoencoder** (VAE) first squeezes each 8×8 block of pixels
# into four numbers. These numbers, the *latents* $x_0$, are all that the rest of the model ever sees.

# %% tags=["nbval-check-output"]
pixels, numbers = 3 * (8 * x0.shape[2]) * (8 * x0.shape[3]), x0.numel()
print(f"picture: {pixels} numbers, latents {tuple(x0.shape)}: {numbers}, {pixels // numbers} times fewer")

# %%
image = scene.image
back = decode(vae, x0)

figure, axes = plt.subplots(1, 6, figsize=(9, 1.8))
show_image(image, axes[0], "picture")
for channel, ax in enumerate(axes[1:5]):
    shown = x0[0, channel].float().cpu()
    ax.imshow(shown, cmap=lesson.DIVERGING, vmin=-3, vmax=3)
    ax.set_title(f"latent channel {channel}")
    ax.set_axis_off()
show_image(back, axes[5], "decoded")
plt.show()

# %% [markdown]
# Red is positive, blue negative, white zero; full colour is 3. The latents are still a picture of a kind: each object
# stands where it stood, but at an eighth of the resolution. This is why attention maps, later, are so coarse. The decoded
# picture is softer than the original. How much softer?

# %% [markdown]
# **PSNR** puts a number on it: the peak value, squared, over the mean squared error, in decibels.
#
# $$\mathrm{PSNR} = 10 \log_{10} \frac{255^2}{\mathrm{mean}\,(a - b)^2}$$
#
# Toy numbers first. If every pixel is wrong by 1, the PSNR is $10 \log_{10} 255^2$; if by 10, it is 20 dB less.

# %% tags=["nbval-check-output"]
grey = np.full((4, 4, 3), 100, np.uint8)
for error in (1, 10, 100):
    print(f"every pixel wrong by {error:3d}: {psnr(grey, grey + np.uint8(error)):5.1f} dB")

# %% [markdown]
# ### Exercise 1.1 · PSNR
# **Difficulty** ●○○○○ · **Time** 5 minutes
#
# Write PSNR for two uint8 pictures. There is a trap in the subtraction.
#
# <details><summary>Hint</summary>
#
# What is `np.uint8(3) - np.uint8(5)`? `.astype(float)` makes numbers that can be negative.
# </details>


# %% tags=["exercise"]
def my_psnr(a, b):
    """PSNR in dB of two (H, W, 3) uint8 pictures."""
    ### BEGIN SOLUTION
    error = np.square(a.astype(float) - b.astype(float)).mean()
    return 10 * np.log10(255**2 / error)
    ### END SOLUTION


checks.check_psnr(my_psnr)

# %%
resized = np.array(Image.fromarray(image).resize(back.shape[1::-1]))
print(f"through the VAE and back: {psnr(resized, back):.1f} dB")
print(f"standard deviation of the latents: {float(x0.std()):.2f}")

# %% [markdown]
# 20 dB is poor, 30 good, 40 hardly told from the original. The second line is about **scaling**: the VAE's raw numbers
# are multiplied by `vae.config.scaling_factor`, chosen so that latents of many pictures have a standard deviation near
# 1. The noise that we add next has exactly 1, so picture and noise can be weighed against each other.

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
generator = torch.Generator().manual_seed(0)
noise = torch.randn(x0.shape, generator=generator).to(x0)
t = 300
a = alpha_bar(scheduler, t)
by_hand = a**0.5 * x0 + (1 - a) ** 0.5 * noise
torch.testing.assert_close(by_hand, add_noise(scheduler, x0, noise, t))

# %%
times = [0, 51, 101, 301, 601, 951]
figure, axes = plt.subplots(1, len(times), figsize=(9, 1.8))
for ax, t in zip(axes, times, strict=True):
    show_image(decode(vae, add_noise(scheduler, x0, noise, t)), ax, f"t = {t}, a = {alpha_bar(scheduler, t):.2f}")

# %% [markdown]
# The same noise each time, in growing strength. One jump leads to any $t$; no loop is needed. Note how long the objects
# can be told: at $t = 101$, near the level that Ref-Diff uses, the picture is still all there.

# %% [markdown]
# ### The schedule
#
# Who sets $\bar\alpha_t$? In training the noise is thought of as added in 1000 small steps. Step $t$ takes away a share
# $\beta_t$ of the variance, so $\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)$. Stable Diffusion starts at $\beta =
# 0.00085$, ends at $0.012$, and spaces the **square roots** evenly.

# %% [markdown]
# ### Exercise 1.2 · The schedule
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# Compute $\bar\alpha_t$ for all steps.
#
# <details><summary>Hint</summary>
#
# `torch.linspace` between the square roots, squared, gives the betas. `torch.cumprod(x, 0)` multiplies up.
# </details>


# %% tags=["exercise"]
def schedule(start, end, steps):
    """Share of the variance left after each step, a (steps,) tensor; start, end: first and last beta."""
    ### BEGIN SOLUTION
    betas = torch.linspace(start**0.5, end**0.5, steps) ** 2
    return torch.cumprod(1 - betas, 0)
    ### END SOLUTION


checks.check_schedule(schedule)

# %%
a = scheduler.alphas_cumprod
paper_t = scene.timesteps[model.config.noise_step]
figure, ax = plt.subplots(figsize=(5.5, 2.6))
ax.plot(a.sqrt(), label=r"picture, $\sqrt{\bar\alpha_t}$")
ax.plot((1 - a).sqrt(), "--", label=r"noise, $\sqrt{1-\bar\alpha_t}$")
ax.axvline(paper_t, color=lesson.RED, linestyle=":", label=f"where Ref-Diff reads, t = {paper_t}")
ax.set(xlabel="timestep t", ylabel="weight", ylim=(0, 1.02), xlim=(0, 999))
ax.legend()
plt.show()

# %% tags=["nbval-check-output"]
for t in (0, 101, 500, 999):
    print(f"t = {t:3d}: {100 * float(a[t]):5.1f} % of the variance is picture")

# %% [markdown]
# The two weights cross about a third of the way: beyond that, noise has the upper hand. At the end hardly half a
# percent of the variance is picture, but not nothing. The dotted line is where Ref-Diff asks its question: a little
# noise, so that the UNet has something to do, and much picture, so that its answer is about *this* picture.

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
for column, t in zip(axes.T, (51, 301, 601, 951), strict=True):
    a, x = alpha_bar(scheduler, t), add_noise(scheduler, x0, noise, t)
    guess = (x - (1 - a) ** 0.5 * predict(x, t)) / a**0.5
    show_image(decode(vae, x), column[0], f"$x_t$, t = {t}")
    show_image(decode(vae, guess), column[1], f"$\\hat x_0$, {psnr(decode(vae, guess), back):.0f} dB")

# %% [markdown]
# The decibels compare $\hat x_0$ with the decoded original. With little noise the guess is nearly the picture. With
# much noise the network cannot know what was there, and answers with the mean of all that might have been: soft blobs.
# One step is not enough.

# %% [markdown]
# So take the guess, but not all the way: put the *same* predicted noise back on, at a slightly lower level $t'$. That
# is a **DDIM step**.
#
# $$x_{t'} = \sqrt{\bar\alpha_{t'}}\;\hat x_0 + \sqrt{1 - \bar\alpha_{t'}}\;\epsilon$$

# %% [markdown]
# ### Exercise 1.3 · A DDIM step
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# Write it, with `a` and `to` as the two values of $\bar\alpha$.
#
# <details><summary>Hint</summary>
#
# Two lines: first the guess $\hat x_0$ from `x`, `noise` and `a`; then forward noise, to the level `to`, with the same
# noise.
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
# The library's `ddim_step` is that, and so is the step of diffusers' own scheduler:

# %%
t, to = ddim_timesteps(scheduler, 20)[10], ddim_timesteps(scheduler, 20)[9]
x = add_noise(scheduler, x0, noise, t)
epsilon = predict(x, t)
ours = ddim_step(scheduler, x, epsilon, t, to)
theirs = scheduler.step(epsilon, t, x, eta=0.0).prev_sample
torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)

# %% tags=["nbval-check-output"]
print("20 DDIM steps visit", ddim_timesteps(scheduler, 20)[:4], "…", ddim_timesteps(scheduler, 20)[-1])
print("from t =", t, "to", to)

# %% [markdown]
# ## 4 · Many steps: painting
#
# Begin with nothing but noise, and step down. These few lines are all of Stable Diffusion that is not a network.

# %%
prompt = "a red car"
predict = guided(unet, model.encode_prompt([prompt]), 5.0, empty)
x = torch.randn(x0.shape, generator=torch.Generator().manual_seed(4)).to(x0)
times = ddim_timesteps(scheduler, 20)[::-1]
guesses = []
for t, to in zip(times, [*times[1:], -1], strict=True):
    epsilon = predict(x, t)
    guesses.append(ddim_step(scheduler, x, epsilon, t, -1))  # how it would end if we stopped here
    x = ddim_step(scheduler, x, epsilon, t, to)

# %%
shown = [0, 3, 6, 9, 14, 19]
figure, axes = plt.subplots(1, len(shown), figsize=(9, 1.8))
for ax, i in zip(axes, shown, strict=True):
    show_image(decode(vae, guesses[i]), ax, f"guess at t = {times[i]}")

# %% [markdown]
# Read it from left to right: first the colours and the place, then the shape, last the details. Coarse things are
# decided at high $t$, fine things at low $t$. Which words matter when, follows from that, and we can measure it.

# %% [markdown]
# How much does the **right caption** help the UNet to predict the noise, compared with another scene's caption? This is
# measured over ToyRef's test scenes by `make measure`; here we only draw the stored numbers, with their 95 % intervals.

# %%
measures = json.loads((data_dir() / "models" / "toy" / "measures.json").read_text())
levels = [100, 300, 500, 700, 900]
rows = [measures[f"UNet, gain of the right caption at t = {t}"] for t in levels]
gain = 100 * np.array([[r["value"], r["low"], r["high"]] for r in rows]).T
figure, ax = plt.subplots(figsize=(4.5, 2.4))
ax.errorbar(levels, gain[0], yerr=[gain[0] - gain[1], gain[2] - gain[0]], marker="o", capsize=3)
ax.axhline(0, color="grey", linewidth=0.8)
ax.set(xlabel="timestep t", ylabel="error saved, %", title="what the right caption is worth to the toy UNet")
plt.show()

# %% [markdown]
# At low $t$ the picture itself says almost everything, and the caption adds little. Towards the middle it helps most.
# At the far end even the best guess is poor, with any caption. For Ref-Diff this is a dilemma: words matter more where
# the picture is noisier, but a noisy picture is no longer *the* picture.

# %% [markdown]
# ## 5 · Guidance
#
# "a red car" at face value often gives a weak car. **Classifier-free guidance** asks the UNet twice, with the prompt
# and with an empty one, and goes further in the direction in which the two differ:
#
# $$\epsilon = \epsilon_\varnothing + w\,(\epsilon_\text{prompt} - \epsilon_\varnothing)$$

# %% tags=["nbval-check-output"]
without, with_prompt = 0.2, 0.5
for w in (0, 1, 3, 7.5):
    print(f"w = {w:3}: {without + w * (with_prompt - without):.2f}")

# %% [markdown]
# ### Exercise 1.4 · Guidance
# **Difficulty** ●○○○○ · **Time** 5 minutes
#
# Write it for two predictions of the noise.
#
# <details><summary>Hint</summary>
#
# Check the two ends: `w = 0` must give the empty prompt's prediction, and `w = 1` the prompt's own.
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


figure, axes = plt.subplots(3, 3, figsize=(5, 5.2))
for row, w in zip(axes, (1, 4, 15), strict=True):
    for ax, picture in zip(row, paint("a green frog", w), strict=True):
        show_image(picture, ax, f"w = {w}")

# %% [markdown]
# Each column starts from the same noise. Without guidance ($w = 1$) the prompt is one wish among many, and other things
# turn up. With more, the pictures do more to be green and frog-like; with too much, colours run to their limits and
# shapes break. Ref-Diff paints nothing, so it needs no guidance to choose a mask. The official code uses $w = 9$ all
# the same, on the attention maps.

# %% [markdown]
# <details><summary><b>What can go wrong</b></summary>
#
# - **The scaling factor.** 0.18215 is Stable Diffusion 1.5's. Other VAEs have others: read it from `vae.config`.
# - **A hidden dice.** `vae.encode(x).latent_dist.sample()` draws noise. Take `.mode()`, as `encode` does, and results
#   repeat.
# - **`alphas_cumprod` is $\bar\alpha$**, already the product. Taking its square, or forgetting the root, still gives
#   pictures, only bad ones.
# - **The last step** goes to $\bar\alpha = $ `final_alpha_cumprod`, not to index -1 of the table.
# </details>

# %% tags=["nbval-check-output"]
print(f"clean end {alpha_bar(scheduler, -1):.4f}, but the table's last entry {float(scheduler.alphas_cumprod[-1]):.4f}")

# %% [markdown]
# ## Recap
#
# - Latents are a picture at an eighth of the resolution, with four channels; what the VAE drops, nobody gets back.
# - One line adds noise of any strength. The UNet predicts that noise; solving for $x_0$ gives its guess of the clean
#   picture.
# - A DDIM step is "guess, then put the same noise back at another level". It has no randomness, so it can be turned
#   round: lesson 2.
# - Guidance goes further in the direction of the prompt.
#
# **References.** Ho et al., *Denoising Diffusion Probabilistic Models* ([arXiv
# 2006.11239](https://arxiv.org/abs/2006.11239)). Song et al., *Denoising Diffusion Implicit Models* ([arXiv
# 2010.02502](https://arxiv.org/abs/2010.02502)). Rombach et al., *Latent Diffusion* ([arXiv
# 2112.10752](https://arxiv.org/abs/2112.10752)). Ho and Salimans, *Classifier-Free Diffusion Guidance* ([arXiv
# 2207.12598](https://arxiv.org/abs/2207.12598)). In the code: `refdiff_lite/latents.py`.
