"""The UNet under many prompts: batches, guidance and early stop give what one full pass for each prompt would."""

import pytest
import torch

from refdiff_lite.attention import record_attention, run_for_attention
from refdiff_lite.config import RefDiffConfig
from refdiff_lite.latents import ddim_step
from refdiff_lite.unet_pass import unet_pass

LAYERS = {"cross": r"up_blocks\.0"}


@pytest.fixture
def text(noise):
    return noise(3, 24, 128)


@pytest.fixture
def start(noise):
    return [noise(1, 4, 8, 12)]


def by_hand(unet, scheduler, x, steps, given, empty, guidance):
    """Cross-attention of every step, one prompt, conditional and unconditional pass apart and whole."""
    found = []
    for i, t in enumerate(steps):
        with record_attention(unet, LAYERS["cross"], scores="logits") as with_text:
            noise = unet(x, t, given).sample
        with record_attention(unet, LAYERS["cross"], scores="logits") as without:
            nothing = unet(x, t, empty).sample
        found.append({n: m + (guidance - 1) * (m - without.maps[n]) for n, m in with_text.maps.items()})
        if i + 1 < len(steps):
            x = ddim_step(scheduler, x, nothing + guidance * (noise - nothing), t, steps[i + 1])
    return found


def test_early_stop_gives_the_full_passes_maps_and_skips_the_rest(unet, noise, text):
    x = noise(1, 4, 8, 12)
    ran = []
    handle = unet.up_blocks[1].register_forward_pre_hook(lambda *a: ran.append(1))
    with record_attention(unet, "up_blocks.0") as full:
        unet(x, 101, text[:1])
    assert len(ran) == 1
    with record_attention(unet, "up_blocks.0") as part, record_attention(unet, "mid", kind="self") as other:
        run_for_attention(unet, x, 101, text[:1])
    handle.remove()
    assert len(ran) == 1
    assert part.maps.keys() == full.maps.keys()
    assert all(torch.equal(m, full.maps[n]) for n, m in part.maps.items())
    assert len(other.maps) == 1
    with record_attention(unet, "up_blocks.0") as again:  # nothing of the stop is left behind
        unet(x, 101, text[:1])
    assert torch.equal(again.maps["up_blocks.0.attentions.0"], full.maps["up_blocks.0.attentions.0"])


def test_early_stop_needs_a_recording(unet, noise, text):
    with pytest.raises(ValueError, match="within record_attention"):
        run_for_attention(unet, noise(1, 4, 8, 8), 101, text[:1])


def test_a_batch_of_sentences_equals_one_by_one(unet, scheduler, start, text):
    config = RefDiffConfig.paper()
    together = unet_pass(unet, scheduler, start, [101], text, None, LAYERS, config)
    for i, found in enumerate(together):
        alone = unet_pass(unet, scheduler, start, [101], text[i : i + 1], None, LAYERS, config)[0]
        assert found["cross"].maps.keys() == alone["cross"].maps.keys()
        for name, m in found["cross"].maps.items():
            torch.testing.assert_close(m, alone["cross"].maps[name], atol=1e-6, rtol=0)
    assert not torch.allclose(*(f["cross"].maps["up_blocks.0.attentions.0"] for f in together[:2]), atol=1e-4)


def test_guided_steps_equal_the_official_order_of_work(unet, scheduler, start, text, noise):
    """Conditional and unconditional passes apart, whole, sentence by sentence; maps (cond - uncond) * 9 + uncond."""
    config, empty, steps = RefDiffConfig.official(), noise(4, 24, 128)[3:], [51, 1]
    together = unet_pass(unet, scheduler, start, steps, text, empty, LAYERS, config)
    for i, found in enumerate(together):
        expected = by_hand(unet, scheduler, start[0], steps, text[i : i + 1], empty, 9.0)
        assert list(found["cross"].maps) == [f"{n} t={t}" for t in steps for n in expected[0]]
        for t, maps in zip(steps, expected, strict=True):
            for name, m in maps.items():
                torch.testing.assert_close(found["cross"].maps[f"{name} t={t}"], m, atol=2e-5, rtol=1e-5)


def test_the_empty_prompt_is_computed_only_where_it_is_read(unet, scheduler, start, text, noise):
    batches = []
    handle = unet.register_forward_pre_hook(lambda m, args: batches.append(len(args[0])))
    empty = noise(1, 24, 128)
    unet_pass(unet, scheduler, start, [101], text, empty, LAYERS, RefDiffConfig(guidance=3))
    unet_pass(unet, scheduler, start, [51, 1], text, empty, LAYERS, RefDiffConfig(guidance=3, denoise_steps=(1, 0)))
    unet_pass(unet, scheduler, start, [51, 1], text, empty, LAYERS, RefDiffConfig.official())
    handle.remove()
    assert batches == [3, 1 + 3, 3, 1 + 3, 3 + 3]


def test_draws_and_kinds_in_one_pass(unet, scheduler, noise, text):
    a, b = noise(1, 4, 8, 8), noise(2, 4, 8, 8)[1:]
    layers = {"cross": r"up_blocks\.0", "self": "down"}
    config = RefDiffConfig(draws=2)
    both = unet_pass(unet, scheduler, [a, b], [101], text[:1], None, layers, config)[0]
    each = [unet_pass(unet, scheduler, [x], [101], text[:1], None, layers, config)[0] for x in (a, b)]
    assert both["cross"].calls == 2
    for kind in layers:
        for name, m in both[kind].maps.items():
            torch.testing.assert_close(m, (each[0][kind].maps[name] + each[1][kind].maps[name]) / 2)
            assert not torch.allclose(each[0][kind].maps[name], each[1][kind].maps[name], atol=1e-5)
