import pytest
import torch
from diffusers import DDIMScheduler

from refdiff_lite.inversion import denoise, guided, invert
from refdiff_lite.latents import ddim_timesteps


@pytest.fixture
def text(noise):
    return noise(1, 24, 128)


@pytest.mark.parametrize(("steps", "until"), [(50, None), (20, 3), (10, 1)])
def test_constant_noise_is_inverted_exactly(scheduler, noise, steps, until):
    x0, n = noise(1, 4, 6, 8), noise(1, 4, 6, 8)
    path = invert(scheduler, lambda x, t: n, x0, steps, until=until)
    back = denoise(scheduler, lambda x, t: n, path[-1], steps, start=until)
    assert len(path) == len(back) == (until or steps) + 1
    assert path[0] is x0
    assert not torch.allclose(path[-1], x0, atol=0.01)
    for there, here in zip(path, reversed(back), strict=True):
        torch.testing.assert_close(here, there, atol=1e-4, rtol=0)


def test_timesteps_at_which_the_noise_is_predicted(scheduler):
    seen = []

    def denoiser(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    times = ddim_timesteps(scheduler, 20)
    invert(scheduler, denoiser, torch.ones(1, 4, 2, 2), 20, until=3)
    assert seen == [0, *times[:2]]  # plain: at the lower end of each step
    seen.clear()
    invert(scheduler, denoiser, torch.ones(1, 4, 2, 2), 20, until=2, fixed_point=2)
    assert seen == [0, times[0], times[0], times[0], times[1], times[1]]
    seen.clear()
    denoise(scheduler, denoiser, torch.ones(1, 4, 2, 2), 20, start=3)
    assert seen == times[2::-1]


def test_the_clean_end_is_the_schedulers(scheduler, noise):
    clean = DDIMScheduler.from_config(scheduler.config, set_alpha_to_one=True)
    x0, n = noise(1, 4, 6, 8), noise(1, 4, 6, 8)
    x = clean.add_noise(x0, n, torch.tensor([101]))
    torch.testing.assert_close(denoise(clean, lambda x, t: n, x, 20, start=3)[-1], x0, atol=1e-4, rtol=0)


def test_zero_steps_are_no_steps(scheduler):
    x0 = torch.ones(1, 4, 2, 2)
    assert invert(scheduler, lambda x, t: x, x0, 20, until=0) == [x0]


def test_fixed_point_beats_plain_inversion(scheduler, unet, text, noise):
    x0, model = noise(1, 4, 8, 8), guided(unet, text)

    def error(fixed_point):
        path = invert(scheduler, model, x0, 10, until=5, fixed_point=fixed_point)
        return (denoise(scheduler, model, path[-1], 10, start=5)[-1] - x0).norm().item()

    plain, repaired = error(0), error(4)
    assert plain > 1e-3
    assert repaired < 0.2 * plain


def test_other_predictions_than_noise_are_refused(scheduler):
    other = DDIMScheduler.from_config(scheduler.config, prediction_type="v_prediction")
    with pytest.raises(ValueError, match="v_prediction"):
        invert(other, lambda x, t: x, torch.ones(1, 4, 2, 2), 20)


def test_guidance(unet, text, noise):
    x, empty = noise(1, 4, 8, 8), noise(1, 24, 128)
    with_text, without = guided(unet, text)(x, 101), guided(unet, empty)(x, 101)
    torch.testing.assert_close(with_text, unet(x, 101, text).sample)
    torch.testing.assert_close(
        guided(unet, text, 3.0, empty)(x, 101), without + 3 * (with_text - without), atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(with_text, without, atol=1e-3)
    with pytest.raises(ValueError, match="empty prompt"):
        guided(unet, text, 3.0)
