"""``RefDiffConfig.official()`` against the words that describe the official code, each written out in plain float64."""

import copy

import numpy as np
import pytest
import reference
import torch
from PIL import Image

from refdiff_lite import RefDiff, RefDiffConfig, fusion, ranking
from refdiff_lite.attention import AttentionMaps, word_map
from refdiff_lite.images import pad_to_square
from refdiff_lite.masks import keep
from refdiff_lite.networks import clip as towers

OFFICIAL = RefDiffConfig.official()


def stretch(x):
    return (x - x.min()) / (x.max() - x.min())


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("height", "width", "top", "left"), [(7, 4, 0, 1), (4, 7, 1, 0), (5, 5, 0, 0)])
def test_image_padded_with_black_to_a_square(rng, height, width, top, left):
    image = rng.integers(1, 255, (height, width, 3), dtype=np.uint8)
    square = pad_to_square(image)
    expected = np.zeros((max(height, width),) * 2 + (3,), np.uint8)
    for y in range(height):
        for x in range(width):
            expected[y + top, x + left] = image[y, x]
    np.testing.assert_array_equal(square, expected)


def test_noise_at_step_2_and_denoising_from_step_1(sd15_nets, rng):
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n at t = 101 of SD's schedule; then passes at t = 51 and 1."""
    image = rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)
    scene = RefDiff(sd15_nets, OFFICIAL).set_image(image)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    a = np.cumprod(1 - betas)[101]
    n = torch.randn(scene.latents.shape, generator=torch.Generator().manual_seed(0)).double().numpy()
    x0 = scene.latents.double().numpy()
    np.testing.assert_allclose(scene.noised[0], np.sqrt(a) * x0 + np.sqrt(1 - a) * n, atol=1e-5)
    assert [scene.timesteps[s] for s in OFFICIAL.denoise_steps] == [51, 1]
    assert x0.shape[-2:] == (16, 16)  # twice 64 pixels, square


@pytest.mark.parametrize("size", [(90, 120), (120, 90), (64, 64)])
def test_map_of_a_word(rng, size):
    """Min-max per layer and step, mean, uint8, LANCZOS to the square, un-pad, min-max again."""
    logits = {f"layer{i} t={t}": 5 * rng.normal(size=(8, 8, 3)) + i for i in range(5) for t in (51, 1)}
    maps = {n: torch.from_numpy(m[None]).float() for n, m in logits.items()}
    found = word_map(
        AttentionMaps("cross", "logits", maps, 2), [0, 2], size, OFFICIAL.normalise, OFFICIAL.upsample, OFFICIAL.pad
    )
    mean = np.mean([stretch(m[..., 2]) for m in logits.values()], axis=0)
    side = max(size)
    large = Image.fromarray((mean * 255).astype(np.uint8)).resize((side, side), Image.Resampling.LANCZOS)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    expected = stretch(np.asarray(large, np.float64)[top : top + size[0], left : left + size[1]])
    assert found.shape == size
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_flat_map_is_zero_where_the_code_divides_by_zero():
    flat = AttentionMaps("cross", "logits", {"a": torch.ones(1, 4, 4, 2)}, 1)
    assert torch.equal(word_map(flat, [1], (8, 6), "each", "lanczos", True), torch.zeros(8, 6))


def test_generative_score_is_mean_inside_minus_mean_outside(rng):
    c, masks = rng.uniform(size=(9, 11)), rng.uniform(size=(4, 9, 11)) > 0.6
    found = fusion.generative_score(torch.from_numpy(c).float(), torch.from_numpy(masks))
    np.testing.assert_allclose(found, [c[m].mean() - c[~m].mean() for m in masks], atol=1e-6)


@pytest.mark.parametrize("cue", ["left", "right"])
def test_ramp_over_two_thirds_of_the_width(cue):
    """1 at the cue's edge, falling to 0 at two thirds of the width, 0 on the last third; at every width."""
    for width in range(2, 700):
        found = ranking.positional_bias((cue,), (1, width), OFFICIAL.ramp)[0]
        np.testing.assert_allclose(found, reference.ramp(width, cue), atol=1e-6)


def test_only_the_crop_branch_is_biased_and_only_left_and_right(sd15_nets, rng):
    image, mask = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), np.ones((1, 64, 64), bool)
    scene = RefDiff(sd15_nets, OFFICIAL.replace(min_area=0)).set_image(image, oracle=mask)
    masks, nets = scene.proposals_of(mask), scene.model.networks
    for branch, cues, biased in (
        ("crop", ("left",), True),
        ("crop", ("top",), False),
        ("masked", ("left",), False),
    ):
        plain, with_cue = (ranking.visual_features(nets, masks, branch, c, OFFICIAL) for c in ((), cues))
        assert torch.equal(plain, with_cue) != biased


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(30, 50, (224, 373)), (50, 30, (373, 224)), (9, 9, (224, 224))]
)
def test_tight_crop_with_its_shorter_side_at_224(rng, height, width, expected):
    image = torch.from_numpy(rng.uniform(size=(3, 80, 80))).float()
    mask = torch.zeros(1, 80, 80, dtype=torch.bool)
    mask[0, 7 : 7 + height, 11 : 11 + width] = True
    (crop,) = ranking.crops(image, mask, 224, OFFICIAL.crop_resize)
    assert tuple(crop.shape[1:]) == expected
    np.testing.assert_allclose(crop.mean(), image[:, mask[0]].mean(), atol=0.01)


def attention64(block, x, keys, allowed):
    """Multi-head attention of a residual block in numpy: queries x (n, d), keys (m, d), allowed (n, m)."""
    heads, d = block.attn.num_heads, x.shape[1]
    w, b = (p.detach().double().numpy() for p in (block.attn.in_proj_weight, block.attn.in_proj_bias))
    q, k, v = (y @ w[i * d : i * d + d].T + b[i * d : i * d + d] for i, y in enumerate((x, keys, keys)))
    out = []
    for h in np.split(np.arange(d), heads):
        logits = q[:, h] @ k[:, h].T / np.sqrt(d / heads)
        share = np.where(allowed, np.exp(logits - logits.max()), 0)
        out.append(share / share.sum(1, keepdims=True) @ v[:, h])
    w, b = (p.detach().double().numpy() for p in (block.attn.out_proj.weight, block.attn.out_proj.bias))
    return np.concatenate(out, 1) @ w.T + b


def test_soft_feature_is_one_class_token_per_mask(clip, rng):
    """Each class token sees itself and its own patches; patches see no class token. One mask at a time, by hand."""
    net = copy.deepcopy(clip).double()
    visual, half = net.visual, torch.full((3,), 0.5, dtype=torch.float64)
    pixels = torch.from_numpy(rng.uniform(size=(3, 64, 64)))
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, :32, 16:48], masks[1, 40:, :] = True, True
    found = towers.encode_masks(net, pixels, masks, (64, 64), half, half)
    with torch.no_grad():
        patches = visual.conv1((pixels[None] - 0.5) / 0.5).flatten(2)[0].T + visual.positional_embedding[1:]
        patches = visual.ln_pre(patches).numpy()
        start = visual.ln_pre(visual.class_embedding + visual.positional_embedding[0]).numpy()[None]

    def through(module, x):
        with torch.no_grad():
            return module(torch.from_numpy(x)).numpy()

    for feature, mask in zip(found, masks, strict=True):
        inside = mask.numpy()[4::8, 4::8].ravel()  # the masks lie on whole patches of 8
        x, token = patches, start
        for block in visual.transformer.resblocks:
            norm, norm_token = through(block.ln_1, x), through(block.ln_1, token)
            keys, allowed = np.concatenate([norm_token, norm]), np.concatenate([[True], inside])[None]
            token = token + attention64(block, norm_token, keys, allowed)
            x = x + attention64(block, norm, norm, np.ones((len(x), len(x)), bool))
            x, token = (y + through(block.mlp, through(block.ln_2, y)) for y in (x, token))
        v = (through(visual.ln_post, token) @ visual.proj.detach().numpy())[0]
        np.testing.assert_allclose(feature, v / np.linalg.norm(v), atol=1e-9)


SIZES = [(64, 96), (96, 64), (70, 101), (64, 64), (131, 83), (45, 150)]


@pytest.fixture(scope="module")
def own_clip(clip):
    """A copy for the reference, which computes in float64."""
    return copy.deepcopy(clip)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cue", [None, "left", "right"])
def test_both_branches_agree_with_a_second_writing_of_the_official_arithmetic(sd15_nets, own_clip, rng, size, cue):
    """At every size: ramp, 8-bit crops, nearest patch masks, the remainder that is cut, the stretched position table."""
    height, width = size
    image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    masks = np.stack([
        (y - 30) ** 2 + (x - 28) ** 2 < 500, (y > height // 2) & (x > 10), x > width - 12, (y < 20) & (x % 3 > 0), y >= 0,
    ])  # fmt: skip
    scene = RefDiff(sd15_nets, RefDiffConfig.official(min_area=0)).set_image(image, oracle=masks)
    ranked, cues = scene.proposals("oracle"), (cue,) if cue else ()
    found = {b: ranking.visual_features(sd15_nets, ranked, b, cues, scene.config).numpy() for b in ("crop", "masked")}
    order = ranked.masks.numpy()
    half = np.full(3, 0.5)
    np.testing.assert_allclose(found["crop"], reference.hard(own_clip, image, order, cue, half, half), atol=5e-4)
    np.testing.assert_allclose(found["masked"], reference.soft(own_clip, image, order, half, half), atol=5e-4)


def test_another_rule_for_the_patches_would_be_seen(sd15_nets, own_clip, rng):
    """What the test above allows, 0.0005, is less than what one wrong rule makes."""
    image = rng.integers(0, 255, (70, 101, 3), dtype=np.uint8)
    mask = (np.hypot(*np.mgrid[-35:35, -50:51]) < 20)[None]
    half = np.full(3, 0.5)
    expected = {
        "masked": reference.soft(own_clip, image, mask, half, half),
        "crop": reference.hard(own_clip, image, mask, "left", half, half),
    }
    for branch, changes in (
        ("masked", {"masked_patches": "half"}), ("masked", {"positions": "fitted"}), ("masked", {"masked_side": "clip"}),
        ("crop", {"crop_resize": "square"}), ("crop", {"ramp": 1.0}), ("crop", {"positional_bias": "none"}),
    ):  # fmt: skip
        config = RefDiffConfig.official(min_area=0, **changes)
        scene = RefDiff(sd15_nets, config).set_image(image, oracle=mask)
        found = ranking.visual_features(sd15_nets, scene.proposals("oracle"), branch, ("left",), config).numpy()
        assert np.abs(found - expected[branch]).max() > 5e-4, changes


def test_score_is_hard_soft_and_diff(sd15_nets, rng):
    """0.7 hard (sentence) + 0.3 soft (half sentence, half root word) + 0.05 difference."""
    image = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    masks = np.zeros((3, 64, 96), bool)
    masks[0, 5:40, 5:40], masks[1, 20:60, 50:90], masks[2, 40:, 10:30] = True, True, True
    scene = RefDiff(sd15_nets, RefDiffConfig.official(min_area=0)).set_image(image, oracle=masks)
    result = scene.segment("the small cat on the right", "full")
    nets, ranked = sd15_nets, scene.proposals("oracle")
    hard, soft = (
        ranking.visual_features(nets, ranked, b, ("right",), scene.config).double().numpy() for b in ("crop", "masked")
    )
    text = towers.encode_text(nets.clip, nets.clip_tokenizer, "the small cat on the right", "cat").double().numpy()
    diff = [result.word_map[m].mean(dtype=float) - result.word_map[~m].mean(dtype=float) for m in result.proposals]
    expected = 0.7 * hard @ text[0] + 0.3 * soft @ (0.5 * text[0] + 0.5 * text[1]) + 0.05 * np.array(diff)
    np.testing.assert_allclose(result.scores["S"], expected, atol=1e-6)
    assert result.best == expected.argmax()


def test_the_ten_largest_then_those_above_10000_pixels():
    areas = [20_000 + i for i in range(8)] + [10_000, 10_001, 9_000, 30_000]
    masks = torch.zeros(len(areas), 200, 200, dtype=torch.bool)
    for mask, area in zip(masks, areas, strict=True):
        mask.view(-1)[:area] = True
    kept = keep(masks, OFFICIAL.keep_largest, OFFICIAL.min_area).sum((1, 2)).tolist()
    largest = sorted(areas, reverse=True)[:10]
    assert kept == [a for a in largest if a > 10_000]
    few = keep(masks[8:11], OFFICIAL.keep_largest, OFFICIAL.min_area).sum((1, 2)).tolist()
    assert few == [10_001]
