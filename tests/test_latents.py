import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from refdiff_lite import latents


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)


def test_twenty_steps(scheduler):
    assert latents.ddim_timesteps(scheduler, 20) == list(range(1, 952, 50))


@pytest.mark.parametrize("steps", [1, 7, 50, 999])
def test_timesteps_ascend_within_the_schedule(scheduler, steps):
    times = latents.ddim_timesteps(scheduler, steps)
    assert times == sorted(set(times))
    assert len(times) == steps
    assert 0 <= times[0] <= times[-1] < len(scheduler.alphas_cumprod)


def test_alpha_bar_falls_from_the_clean_end(scheduler):
    values = [latents.alpha_bar(scheduler, t) for t in (-1, 1, 500, 999)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(0.99915)
    assert 0 < values[-1] < 0.01


@pytest.mark.parametrize("t", [0, 101, 999])
def test_noise_is_added_as_the_scheduler_does(scheduler, noise, t):
    x, n = noise(1, 4, 6, 8), noise(1, 4, 6, 8)
    torch.testing.assert_close(latents.add_noise(scheduler, x, n, t), scheduler.add_noise(x, n, torch.tensor([t])))


@pytest.mark.parametrize(("t", "to"), [(951, 901), (101, 51), (1, -1)])
def test_a_step_down_is_ddim(scheduler, noise, t, to):
    x, n = noise(1, 4, 6, 8), noise(1, 4, 6, 8)
    theirs = DDIMScheduler.from_config(scheduler.config)
    theirs.set_timesteps(20)
    torch.testing.assert_close(latents.ddim_step(scheduler, x, n, t, to), theirs.step(n, t, x).prev_sample)


def test_a_step_up_undoes_a_step_down(scheduler, noise):
    x, n = noise(1, 4, 6, 8), noise(1, 4, 6, 8)
    down = latents.ddim_step(scheduler, x, n, 101, 51)
    assert not torch.allclose(down, x, atol=1e-2)
    torch.testing.assert_close(latents.ddim_step(scheduler, down, n, 51, 101), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (64, 64)])
def test_shapes_there_and_back(vae, image, size):
    x0 = latents.encode(vae, image, size)
    assert x0.shape == (1, 4, size[0] // 8, size[1] // 8)
    back = latents.decode(vae, x0)
    assert back.shape == (*size, 3)
    assert back.dtype == np.uint8


def test_dtype_is_the_vaes(vae, image):
    double = copy.deepcopy(vae).double()
    x0 = latents.encode(double, image, (64, 64))
    assert x0.dtype == torch.float64
    assert latents.decode(double, x0.float()).shape == (64, 64, 3)  # latents are brought to the VAE's dtype
    assert latents.encode(vae, image, (64, 64)).dtype == torch.float32


def test_encoding_is_the_scaled_mode_of_pixels_in_minus_one_to_one(vae, image):
    at_size = image[:48, :64]
    x = torch.from_numpy(at_size).permute(2, 0, 1)[None].float() / 127.5 - 1
    expected = vae.encode(x).latent_dist.mode() * vae.config.scaling_factor
    torch.testing.assert_close(latents.encode(vae, at_size, (48, 64)), expected)


def test_decoding_undoes_the_scaling_and_clips(vae, noise):
    scaled = copy.deepcopy(vae)
    scaled.register_to_config(scaling_factor=2 * vae.config.scaling_factor)
    z = noise(1, 4, 4, 4) * 3
    np.testing.assert_array_equal(latents.decode(vae, z), latents.decode(scaled, 2 * z))
    x = vae.decode(z / vae.config.scaling_factor).sample[0].clamp(-1, 1).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(latents.decode(vae, z), (x + 1) * 127.5, atol=0.51)


def test_alpha_bar_of_the_first_timestep_is_not_the_clean_end():
    scheduler = DDIMScheduler(set_alpha_to_one=True)
    assert latents.alpha_bar(scheduler, 0) == float(scheduler.alphas_cumprod[0]) < 1
    assert latents.alpha_bar(scheduler, -1) == 1


class Identity(torch.nn.Module):
    """A VAE of factor 1 that changes nothing, with the outputs of AutoencoderTiny."""

    config = SimpleNamespace(scaling_factor=2.0)
    dtype = torch.float32

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, x):
        return SimpleNamespace(latents=x)

    def decode(self, x):
        return SimpleNamespace(sample=x)


def test_values_beyond_white_and_black_do_not_wrap_around():
    x = torch.tensor([-1.5, -1, 0, 1, 1.5]).expand(1, 3, 1, 5) * 2
    assert latents.decode(Identity(), x)[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_an_autoencoder_without_a_distribution(image):
    x0 = latents.encode(Identity(), image, image.shape[:2])
    assert x0.shape == (1, 3, 50, 80)
    np.testing.assert_array_equal(latents.decode(Identity(), x0), image)


def test_the_picture_is_resized_by_lanczos(image):
    found = latents.decode(Identity(), latents.encode(Identity(), image, (25, 40)))
    np.testing.assert_array_equal(found, Image.fromarray(image).resize((40, 25), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("where", ["meta", torch.device("meta"), None])
def test_latents_are_made_where_an_offloaded_network_computes(image, where):
    """Only the hook of CPU offload knows the device: the weights themselves lie elsewhere."""
    vae = Identity()
    vae._hf_hook = SimpleNamespace(execution_device=where)
    x0 = latents.encode(vae, image, image.shape[:2])
    assert x0.device.type == ("cpu" if where is None else "meta")
