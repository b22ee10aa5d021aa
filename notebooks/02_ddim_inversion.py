# ---
# title: DDIM inversion
# minutes: 45
# cpu: 1
# gpu: 3
# goals:
#   - turn DDIM round, and find the noise that a picture could have come from
#   - say which assumption breaks, and show it with a number
#   - repair it in two ways, and break it again with guidance
#   - explain why Ref-Diff adds random noise instead
# ---
# %% tags=["setup"]
from refdiff_lite import lesson

PRESET = "toy"
lesson.start(PRESET)

# %%
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.checks import ddim_inversion as checks
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.metrics import bootstrap, psnr
from refdiff_lite.inversion import denoise, guided, invert
from refdiff_lite.latents import add_noise, alpha_bar, ddim_step, ddim_timesteps, decode
from refdiff_lite.viz import show_image, show_map
from refdiff_lite.widgets import InversionExplorer

# %% [markdown]
# A DDIM step has no randomness: the same noise always becomes the same picture. So, can one go **backwards**, and find
# the noise that becomes *this* picture? If so, we could ask the UNet about a real picture exactly as if it had painted
# it. This is the idea of DDIM inversion, and many methods that edit pictures rest on it.

# %% [markdown]
# ## 1 · Toy numbers: a step there and back
#
# Lesson 1 gave us the step between two levels $a$ and $a'$ along a predicted noise $\epsilon$. It works in both
# directions. If the *same* $\epsilon$ is used both ways, we come back exactly:


# %% tags=["nbval-check-output"]
def move(x, noise, a, to):
    """One DDIM step from level a to level `to`."""
    return to**0.5 * (x - (1 - a) ** 0.5 * noise) / a**0.5 + (1 - to) ** 0.5 * noise


up = move(1.0, 0.3, 0.9, 0.5)
print(f"1.000 -> {up:.3f} -> {move(up, 0.3, 0.5, 0.9):.3f}   the same noise both ways")
print(f"1.000 -> {up:.3f} -> {move(up, 0.5, 0.5, 0.9):.3f}   another noise on the way back")

# %% [markdown]
# And here is the catch. On the way **down**, the noise for the step from $t'$ to $t$ is predicted at the noisy point
# $x_{t'}$. On the way **up** we do not have $x_{t'}$ yet; it is what we want to know. Plain inversion predicts at $x_t$
# instead, and hopes that it makes no difference:
#
# $$\epsilon(x_t, t) \approx \epsilon(x_{t'}, t')$$

# %% [markdown]
# ### Exercise 2.1 · Inversion
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# Write plain inversion. `levels` are the values of $\bar\alpha$ from clean to noisy; `predict(x, a)` predicts the noise
# of `x` at level `a`.
#
# <details><summary>Hint</summary>
#
# `for a, to in pairwise(levels):` gives all pairs of neighbours. In the loop: predict at `x` and `a`, then move.
# </details>


# %% tags=["exercise"]
def my_invert(move, predict, x, levels):
    """The noisiest latents that the path from x leads up to."""
    ### BEGIN SOLUTION
    for a, to in pairwise(levels):
        x = move(x, predict(x, a), a, to)
    return x
    ### END SOLUTION


checks.check_invert(my_invert)

# %% [markdown]
# ## 2 · By hand, on a picture
#
# The same with timesteps instead of levels, and the UNet as `predict`. One detail: the first step starts from the clean
# end, which has no timestep of its own; we call it $-1$ and let the UNet read $t = 0$.

# %%
model = RefDiff.from_preset(PRESET)
vae, unet, scheduler = model.networks.sd.vae, model.networks.sd.unet, model.networks.sd.scheduler
samples = load_toyref("val", limit=12)
scene = model.set_image(samples[10].path)
x0, caption = scene.latents, "two dogs, a penguin and an apple"
predict = guided(unet, model.encode_prompt([caption]))

# %%
times = [-1, *ddim_timesteps(scheduler, 10)]
x = x0
for t, to in pairwise(times):
    x = ddim_step(scheduler, x, predict(x, max(t, 0)), t, to)

torch.testing.assert_close(x, invert(scheduler, predict, x0, 10)[-1])

# %% [markdown]
# Now the way back, from that noise to a picture. Let us look at the whole path: up on top, down below.

# %%
path_up = invert(scheduler, predict, x0, 10)
path_down = denoise(scheduler, predict, path_up[-1], 10)[::-1]

figure, axes = plt.subplots(2, 5, figsize=(8, 3.4))
for column, i in zip(axes.T, (0, 2, 5, 8, 10), strict=True):
    show_image(decode(vae, path_up[i]), column[0], f"up, t = {max(times[i], 0)}")
    show_image(decode(vae, path_down[i]), column[1], f"down, t = {max(times[i], 0)}")


# %%
def likeness(x):
    """PSNR in dB against the decoded original: the VAE's own loss does not count."""
    return psnr(decode(vae, x), decode(vae, x0))


print(f"inverted and painted again in 10 steps: {likeness(path_down[0]):.1f} dB")
print(f"noise at the top: mean {float(path_up[-1].mean()):+.2f}, standard deviation {float(path_up[-1].std()):.2f}")

# %% [markdown]
# The first picture of the lower row should be the one above it. It resembles it; it is not the same: edges have moved
# and colours have drifted. The top of the path looks like noise, but may not be quite the standard normal noise that
# painting starts from.

# %% [markdown]
# ### Exercise 2.2 · Who is to blame?
# **Difficulty** ●●○○○ · **Time** 5 minutes
#
# Why is the reconstruction not exact? (a) DDIM draws random numbers; (b) the VAE loses details; (c) the way up and the
# way down predict the noise at different points; (d) the schedule differs between the two ways.
#
# <details><summary>Hint</summary>
#
# For each suspect, ask: would the error go away if this were perfect? Look at what `likeness` compares.
# </details>

# %% tags=["exercise"]
### BEGIN SOLUTION
answer = "c"
### END SOLUTION

checks.check_why(answer)

# %% [markdown]
# ## 3 · The broken assumption, measured
#
# How different are $\epsilon(x_t, t)$ and $\epsilon(x_{t'}, t')$, step by step? We know both ends of every step of the
# path that we have walked.


# %%
def disagreement(steps):
    """Relative difference of the two predictions for every step of plain inversion."""
    path, at = invert(scheduler, predict, x0, steps), [-1, *ddim_timesteps(scheduler, steps)]
    noises = [predict(x, max(t, 0)) for x, t in zip(path, at, strict=True)]
    found = [float((low - high).norm() / high.norm()) for low, high in pairwise(noises)]
    return at[1:], found


figure, ax = plt.subplots(figsize=(5, 2.5))
for steps, line in ((10, "-o"), (50, "-")):
    ax.plot(*disagreement(steps), line, markersize=3, label=f"{steps} steps")
ax.set(xlabel="timestep t' that the step goes up to", ylabel="relative difference", ylim=0)
ax.legend()
plt.show()

# %% [markdown]
# Zero would be a perfect assumption. It is worst where the steps are long compared with what happens: near the clean
# end, where a picture with hardly any noise gives the UNet hardly anything to predict. And shorter steps are better
# steps.

# %% [markdown]
# ## 4 · Two remedies
#
# **More steps.** Shorter steps, closer points, smaller error. It costs time, and never ends: the error shrinks, but
# stays.

# %% [markdown]
# **A fixed point.** We want the $x_{t'}$ whose own prediction leads there. So step up, predict *there*, and step again
# from the same $x_t$ with that prediction; repeat. If the repeats settle, the way up uses the very noise that the way
# down will use.
#
# $$x_{t'}^{(k+1)} = \mathrm{step}\big(x_t,\ \epsilon(x_{t'}^{(k)}, t')\big)$$
#
# By hand, with a pretend network that predicts $0.5\,x$:

# %% tags=["nbval-check-output"]
x, a, to = 1.0, 0.9, 0.5
guess = move(x, 0.5 * x, a, to)
for k in range(5):
    print(f"repeat {k}: x' = {guess:.4f}, back to {move(guess, 0.5 * guess, to, a):.4f}")
    guess = move(x, 0.5 * guess, a, to)

# %% [markdown]
# Each repeat comes closer to 1, where we began. Repeats settle where a small change of $x'$ changes the prediction only
# a little; long steps can break that.

# %% [markdown]
# ### Exercise 2.3 · The fixed point
# **Difficulty** ●●●○○ · **Time** 10 minutes
#
# Write one step of fixed-point inversion: the plain step first, then `repeats` corrections.
#
# <details><summary>Hint</summary>
#
# Every repeat moves from the same `x`; only the point where the noise is predicted changes.
# </details>


# %% tags=["exercise"]
def my_fixed_point(move, predict, x, a, to, repeats):
    """x at level `to`, so that predict(result, to) is the noise that leads there from x."""
    ### BEGIN SOLUTION
    guess = move(x, predict(x, a), a, to)
    for _ in range(repeats):
        guess = move(x, predict(guess, to), a, to)
    return guess
    ### END SOLUTION


checks.check_fixed_point(my_fixed_point)


# %%
def there_and_back(steps, repeats, predict=predict):
    """Latents after inversion and reconstruction."""
    top = invert(scheduler, predict, x0, steps, fixed_point=repeats)[-1]
    return denoise(scheduler, predict, top, steps)[-1]


plans = {"10 steps": (10, 0), "30 steps": (30, 0), "10 steps, 2 repeats": (10, 2), "10 steps, 5 repeats": (10, 5)}
found = {name: there_and_back(*plan) for name, plan in plans.items()}

# %%
figure, axes = plt.subplots(1, 5, figsize=(9, 2.2))
show_image(decode(vae, x0), axes[0], "decoded original")
for ax, (name, x) in zip(axes[1:], found.items(), strict=True):
    show_image(decode(vae, x), ax, f"{name}\n{likeness(x):.1f} dB")

# %% [markdown]
# More steps help; repeats help more for the same number of UNet calls (10 steps with 2 repeats cost 30 calls up and 10
# down). The order of these pictures is what the numbers below assert, for this picture. Over many test scenes `make
# measure` has it.

# %% tags=["nbval-check-output"]
db = {name: likeness(x) for name, x in found.items()}
print("30 steps beat 10:            ", db["30 steps"] > db["10 steps"])
print("2 repeats beat none:         ", db["10 steps, 2 repeats"] > db["10 steps"])
print("5 repeats come back to 40 dB:", db["10 steps, 5 repeats"] > 40)

# %% [markdown]
# **Try it.** In a running notebook, slide from the picture into the noise and back. At the noise: which of the three still
# shows the picture? Choose Latents and look again. On the way back: where does DDIM's curve leave the repaired one?

# %%
InversionExplorer.from_scene(scene, caption, steps=6)

# %% [markdown]
# ## 5 · Guidance breaks it again
#
# Guidance multiplies the difference of two predictions by $w$, and so it multiplies every error in them. What if we
# invert with the plain prediction, but paint back with guidance, as editing would like to?

# %%
top = invert(scheduler, predict, x0, 10, fixed_point=5)[-1]
empty = model.encode_prompt([""])
figure, axes = plt.subplots(1, 4, figsize=(7.5, 2.2))
with_guidance = {}
for ax, w in zip(axes, (1, 2, 4, 8), strict=True):
    back = denoise(scheduler, guided(unet, model.encode_prompt([caption]), w, empty), top, 10)[-1]
    with_guidance[w] = likeness(back)
    show_image(decode(vae, back), ax, f"painted with w = {w}\n{with_guidance[w]:.1f} dB")

# %% tags=["nbval-check-output"]
print("more guidance, less likeness:", list(with_guidance.values()) == sorted(with_guidance.values(), reverse=True))

# %% [markdown]
# The noise at the top belongs to the path *without* guidance. With guidance the way down is another way, and ends in
# another picture. Null-text inversion and its relatives repair this by tuning what stands for the empty prompt.

# %% [markdown]
# ## 6 · And Ref-Diff?
#
# Ref-Diff wants no picture back. It wants one look at the UNet's attention at **low** $t$, with the picture nearly
# clean. There, random noise and inverted noise give latents that both look like the picture:

# %%
t = scene.timesteps[model.config.noise_step]
n = model.config.noise_step + 1
drawn = add_noise(scheduler, x0, torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0), t)
inverted = invert(scheduler, predict, x0, model.config.num_steps, until=n)[-1]
figure, axes = plt.subplots(1, 3, figsize=(5.6, 2.2))
show_image(decode(vae, x0), axes[0], "clean")
show_image(decode(vae, drawn), axes[1], f"random noise, t = {t}")
show_image(decode(vae, inverted), axes[2], f"inverted, t = {t}")
plt.show()

# %%
a = alpha_bar(scheduler, t)
for name, x in (("random", drawn), ("inverted", inverted)):
    noise = (x - a**0.5 * x0) / (1 - a) ** 0.5
    print(f"{name:9} noise: standard deviation {float(noise.std()):.2f}")

# %% [markdown]
# The inverted picture looks cleaner, and its "noise" is weaker than the noise that the UNet was trained on: at this $t$
# it is hardly noise at all, but a little more of the picture. What does that do to the word maps? The package can do
# both: `noise="random"` after the paper, and `noise="ddim"`, a variant of ours.

# %%
configs = {noise: model.config.replace(noise=noise) for noise in ("random", "ddim")}
models = {noise: RefDiff(model.networks, config) for noise, config in configs.items()}
figure, axes = plt.subplots(2, 3, figsize=(5.6, 3.9))
for row, (noise, one) in zip(axes, models.items(), strict=True):
    here = one.set_image(samples[10].path)
    for ax, word in zip(row, ("dog", "penguin", "apple"), strict=True):
        result = here.segment(f"the {word}", "gs")
        show_map(result.word_map, here.image, ax, f'"{word}", {noise} noise')

# %% [markdown]
# Two maps prove nothing. So count, on a few val scenes: how often does the word map, under true masks as proposals,
# pick the thing that is named?


# %%
def hits(one):
    """(image, right?) for every noun of the val scenes, ranked by diffusion alone."""
    found = []
    for sample in samples:
        here = one.set_image(sample.path, oracle=sample.masks)
        for record in [r for r in sample.records if r.style == "noun"]:
            result = here.segment(record.text, "gs")
            found.append(
                (sample.image_id, bool(result.masks[result.best].numpy()[sample.masks[record.target]].mean() > 0.5))
            )
    return found


for noise, one in models.items():
    ids, right = zip(*hits(one), strict=True)
    low, high = bootstrap(right, ids)
    print(
        f"{noise:7}: {100 * np.mean(right):3.0f} % of {len(right)} nouns, 95 % interval {100 * low:.0f} to {100 * high:.0f}"
    )

# %% [markdown]
# With so few nouns the intervals are wide and overlap unless the difference is huge: this is a look, not a result.
# `make ablation` asks the same on all of ToyRef test. What we can say without any count: random noise costs one line
# and no UNet call, inversion costs several calls, and must earn them.

# %% tags=["nbval-check-output"]
print("the paper's config:", RefDiffConfig.paper().noise, "| the official one:", RefDiffConfig.official().noise)

# %% [markdown]
# <details><summary><b>What can go wrong</b></summary>
#
# - **diffusers' `DDIMInverseScheduler`** has defaults that do not fit Stable Diffusion 1.5: build it with
#   `from_config(ddim.config)` and `clip_sample=False`. Its `t` is the step's *target*.
# - **The clean end.** Leaving out the first step, or giving it $\bar\alpha = 1$, spoils all that follow a little.
# - **fp16.** Errors of inversion pile up; what comes back exactly in fp32 may not in fp16.
# - **v-prediction** models need another formula; `invert` refuses them.
# </details>

# %% tags=["nbval-check-output"]
scheduler_v = type(scheduler).from_config(scheduler.config, prediction_type="v_prediction")
try:
    invert(scheduler_v, predict, x0, 10)
except ValueError as error:
    print(error)

# %% [markdown]
# ## Recap
#
# - A DDIM step can be turned round exactly, if the noise is the same both ways. Plain inversion predicts it at the
#   wrong end of the step.
# - Shorter steps shrink the error; a fixed point removes nearly all of it; guidance brings it back.
# - Ref-Diff adds random noise once, at low $t$. Inversion is a variant of ours, to be measured before it is believed.
#
# **References.** Song et al., *Denoising Diffusion Implicit Models* ([arXiv
# 2010.02502](https://arxiv.org/abs/2010.02502)). Mokady et al., *Null-text Inversion* ([arXiv
# 2211.09794](https://arxiv.org/abs/2211.09794)). Pan et al., *Effective Real Image Editing with Accelerated Iterative
# Diffusion Inversion* ([arXiv 2309.04907](https://arxiv.org/abs/2309.04907)), on fixed points. In the code:
# `refdiff_lite/inversion.py`.
