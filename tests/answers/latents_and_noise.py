"""Other right answers to lesson 1's exercises, and wrong ones."""

import numpy as np
import torch


def psnr_by_hand(a, b):
    error = sum((int(x) - int(y)) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True)) / a.size
    return 10 * float(np.log10(255**2 / error))


def psnr_in_torch(a, b):
    return 20 * torch.log10(255 / (torch.tensor(a).double() - torch.tensor(b).double()).square().mean().sqrt())


def schedule_by_loop(start, end, steps):
    left, kept = 1.0, []
    for i in range(steps):
        root = start**0.5 + (end**0.5 - start**0.5) * i / (steps - 1)
        left *= 1 - root * root
        kept.append(left)
    return kept


def step_by_ratio(x, noise, a, to):
    ratio = (to / a) ** 0.5
    return ratio * x + ((1 - to) ** 0.5 - ratio * (1 - a) ** 0.5) * noise


def noisy_by_ratio(x, noise, a, to, sigma, z):
    ratio = (to / a) ** 0.5
    return ratio * x + ((1 - to - sigma**2) ** 0.5 - ratio * (1 - a) ** 0.5) * noise + sigma * z


RIGHT = {
    "guess_caption": ["(B)"],
    "check_psnr": [psnr_by_hand, psnr_in_torch, lambda a, b: np.float32(psnr_by_hand(a, b))],
    "check_schedule": [
        schedule_by_loop,
        lambda start, end, steps: np.cumprod(1 - np.linspace(start**0.5, end**0.5, steps) ** 2),
        lambda start, end, steps: torch.log1p(-(torch.linspace(start**0.5, end**0.5, steps) ** 2)).cumsum(0).exp(),
    ],
    "check_step": [
        step_by_ratio,
        lambda x, noise, a, to: step_by_ratio(x, noise, a, to).numpy(),
        lambda x, noise, a, to: step_by_ratio(x, noise, torch.tensor(a), torch.tensor(to)),
    ],
    "check_guidance": [
        lambda empty, prompt, w: (1 - w) * empty + w * prompt,
        lambda empty, prompt, w: torch.lerp(empty, prompt, w),
        lambda empty, prompt, w: prompt + (w - 1) * (prompt - empty),
    ],
    "check_noisy_step": [
        noisy_by_ratio,
        lambda *args: noisy_by_ratio(*args).numpy(),
        lambda x, noise, a, to, sigma, z: noisy_by_ratio(x.double(), noise.double(), a, to, sigma, z.double()),
    ],
}
WRONG = {
    "check_psnr": [lambda a, b: psnr_by_hand(a, b) / 2, lambda a, b: np.inf],
    "check_schedule": [
        lambda start, end, steps: torch.linspace(1 - start, 1 - end, steps),
        lambda start, end, steps: torch.tensor(schedule_by_loop(start, end, steps)) ** 2,
        lambda start, end, steps: torch.tensor(schedule_by_loop(start, end, steps + 1))[1:],
    ],
    "check_step": [
        lambda x, noise, a, to: x - (a - to) * noise,
        lambda x, noise, a, to: x,
        lambda x, noise, a, to: to**0.5 * x + (1 - to) ** 0.5 * noise,
    ],
    "check_guidance": [
        lambda empty, prompt, w: w * prompt,
        lambda empty, prompt, w: w * (prompt - empty),
        lambda empty, prompt, w: empty + prompt * w,
    ],
    "check_noisy_step": [
        lambda x, noise, a, to, sigma, z: step_by_ratio(x, (1 - sigma) * noise + sigma * z, a, to),
        lambda x, noise, a, to, sigma, z: step_by_ratio(x, noise, a, to),
        lambda x, noise, a, to, sigma, z: noisy_by_ratio(x, noise, a, to, sigma, z) + sigma,
    ],
}
