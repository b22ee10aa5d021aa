"""What differs between samplers, tokenizers and versions."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)  # fmt: skip

from refdiff_lite.latents import ddim_timesteps
from refdiff_lite.networks.compat import ddim, fast_tokenizer


@pytest.mark.parametrize("kind", [PNDMScheduler, EulerDiscreteScheduler, DDIMScheduler])
def test_any_sampler_becomes_ddim_with_its_own_noise_schedule(kind):
    scheduler = kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    found = ddim(scheduler)
    assert ddim_timesteps(found, 20) == list(range(1, 1000, 50))
    torch.testing.assert_close(found.alphas_cumprod, scheduler.alphas_cumprod)
    assert not found.config.clip_sample


def test_a_slow_tokenizer_is_exchanged_for_the_fast_one(tokenizer):
    assert fast_tokenizer(tokenizer) is tokenizer
    fast = fast_tokenizer(SimpleNamespace(is_fast=False, save_pretrained=tokenizer.save_pretrained))
    assert fast.is_fast
    assert fast("the small cat").input_ids == tokenizer("the small cat").input_ids
