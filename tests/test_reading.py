"""Ref-Diff on every family of diffusion models: one look at the noised picture, then the same stages."""

import numpy as np
import pytest
import torch
from tiny_pipelines import PIPELINES, with_vae
from torchvision.transforms import Compose, Normalize

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.expression import parse
from refdiff_lite.look import look
from refdiff_lite.networks import from_networks
from refdiff_lite.networks.words import model_of
from refdiff_lite.reading import maps_of

PICTURE = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
PICTURE[8:40, 10:30] = (200, 30, 30)
MASKS = np.zeros((3, 48, 80), bool)
MASKS[0, 8:40, 10:30] = MASKS[1, :, 50:] = MASKS[2, :20] = True
TEXT, OTHER = "a dog left of a cat", "two red trucks"
every = pytest.mark.parametrize("name", PIPELINES)
others = pytest.mark.parametrize("name", [n for n in PIPELINES if n != "sd1"])


@pytest.fixture(scope="module")
def networks(clip, clip_tokenizer):
    """Each family's networks once, beside a tiny CLIP."""
    made = {}

    def get(name, **more):
        if name not in made:
            pipe, call = with_vae(name)
            pipe.set_progress_bar_config(disable=True)
            half = Compose([Normalize((0.5,) * 3, (0.5,) * 3)])
            made[name] = from_networks(pipe, clip, clip_tokenizer, half, side=96, call=call)
        return made[name]

    return get


@every
def test_every_variant_answers_whatever_was_asked_before(networks, name):
    model = RefDiff(networks(name))
    first, second = (model.set_image(PICTURE, oracle=MASKS) for _ in range(2))
    second.segment(OTHER, "gs")
    for variant in ("g", "gs", "ds", "full"):
        found, again = first.segment(TEXT, variant), second.segment(TEXT, variant)
        assert found.mask.shape == (48, 80)
        assert all(torch.isfinite(s).all() for s in found.scores.values())
        assert found == again
    assert 0 <= found.word_map.min() < found.word_map.max() <= 1
    assert not np.array_equal(found.word_map, first.segment(OTHER, "gs").word_map)


@others
def test_the_map_is_that_of_a_look(networks, name):
    nets, config = networks(name), RefDiffConfig.paper()
    scene = RefDiff(nets, config).set_image(PICTURE)
    record = look(nets.sd, PICTURE, TEXT, noise=3 / 20, steps=20, size=(58, 96), call=nets.call)
    encoders = record.keys("dog")
    each = [record.word_map("dog", pieces="last", encoder=e) for e in encoders]
    mean = np.mean(each, 0)  # SD3 reads the word twice
    mean = (mean - mean.min()) / (mean.max() - mean.min())
    # SDXL's layers have two grids, and a record brings them to the finer one first.
    np.testing.assert_allclose(scene.word_map(parse(TEXT)).numpy(), mean, atol=0.1 if name == "sdxl" else 1e-4)


@others
def test_the_model_sees_the_picture_and_its_noise(networks, name):
    """At little noise two seeds are much alike and two pictures are not; at full noise the picture is gone."""
    nets, seen = networks(name), {}
    model = model_of(nets.sd)

    def keep(module, args, kwargs):
        x = args[0] if args else kwargs.get("hidden_states", kwargs.get("x"))
        seen["x"] = torch.cat([v.flatten() for v in x]) if isinstance(x, (list, tuple)) else x.flatten()

    handle = model.register_forward_pre_hook(keep, with_kwargs=True)

    def x(picture, noise, seed):
        look(nets.sd, picture, TEXT, noise=noise, steps=20, seed=seed, size=(48, 96), call=nets.call)
        return seen["x"].double()

    def alike(a, b):
        return torch.corrcoef(torch.stack([a, b]))[0, 1].item()

    try:
        flipped = PICTURE[:, ::-1].copy()
        little, seeds = x(PICTURE, 0.05, 0), x(PICTURE, 0.05, 1)
        assert alike(little, seeds) > 0.3 + alike(little, x(flipped, 0.05, 0))
        assert alike(x(PICTURE, 1.0, 0), x(flipped, 1.0, 0)) > 0.9
    finally:
        handle.remove()


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_propagation_and_proposals_of_self_attention(networks, name):
    scene = RefDiff(networks(name), RefDiffConfig.paper(propagate=1)).set_image(PICTURE)
    plain = RefDiff(networks(name), RefDiffConfig.paper()).set_image(PICTURE)
    assert not torch.equal(scene.word_map(parse(TEXT)), plain.word_map(parse(TEXT)))
    assert plain.proposals("self-attention").masks.shape[1:] == (48, 80)
    maps, _ = maps_of(networks(name), PICTURE, "", RefDiffConfig.paper(), "self")
    for found in maps.maps.values():
        h, w, keys = found.shape[1:]
        assert keys == h * w


def test_what_a_family_lacks_is_refused(networks):
    with pytest.raises(ValueError, match="linear, without a softmax"):
        RefDiff(networks("sana")).set_image(PICTURE).proposals("self-attention")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(noise="ddim"), "made for Stable Diffusion 1 and 2"),
        (dict(guidance=7.5), "reads the prompt alone"),
        (dict(denoise_steps=(1, 0)), r"it is \(2,\) with noise_step=2"),
    ],
)
def test_constants_that_mean_nothing_in_one_look(networks, change, said):
    with pytest.raises(ValueError, match=said):
        RefDiff(networks("sd3"), RefDiffConfig.paper(**change))


def test_more_draws_are_averaged(networks):
    nets = networks("flux")
    config = RefDiffConfig.paper(draws=2)
    mean, _ = maps_of(nets, PICTURE, TEXT, config)
    alone = [maps_of(nets, PICTURE, TEXT, RefDiffConfig.paper(seed=s))[0].maps for s in (0, 1)]
    for layer, found in mean.maps.items():
        torch.testing.assert_close(found, (alone[0][layer] + alone[1][layer]) / 2)


def test_a_pipeline_that_cannot_begin_with_a_picture_and_a_refiner(networks, clip, clip_tokenizer):
    half = Compose([Normalize((0.5,) * 3, (0.5,) * 3)])
    blind, _ = PIPELINES["sd3"]()
    with pytest.raises(ValueError, match="no encoder for pictures"):
        RefDiff(from_networks(blind, clip, clip_tokenizer, half, side=96))
    refiner, _ = with_vae("sdxl")
    refiner.tokenizer = refiner.text_encoder = None
    with pytest.raises(ValueError, match="SDXL's refiner"):
        RefDiff(from_networks(refiner, clip, clip_tokenizer, half, side=96))
    with pytest.raises(ValueError, match=r"look\(pipe, image, text\) reads StableDiffusion3Pipeline"):
        _ = RefDiff(networks("sd3")).set_image(PICTURE).latents
    with pytest.raises(ValueError, match="enable_model_cpu_offload"):
        RefDiff(from_networks(with_vae("sd3")[0], clip, clip_tokenizer, half, side=96, low_memory=True))


def test_the_side_is_what_the_pipeline_was_trained_on(clip, clip_tokenizer):
    half = Compose([Normalize((0.5,) * 3, (0.5,) * 3)])
    pipe, _ = with_vae("sd3")
    nets = from_networks(pipe, clip, clip_tokenizer, half)
    assert nets.side == pipe.transformer.config.sample_size * pipe.vae_scale_factor


def test_a_head_behind_the_last_token(networks):
    text = "very " * 40 + "small dog"
    with pytest.raises(ValueError, match="lies behind the last token"):
        RefDiff(networks("sdxl")).set_image(PICTURE).segment(text, "gs", head="dog")
