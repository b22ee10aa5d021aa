"""The toy diffusion transformer, tiny: one block on 16×16 latents, a few steps, no pictures drawn."""

import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline

from refdiff_lite.attention import AttentionMaps
from refdiff_lite.toy import train_dit
from refdiff_lite.toy.dit import NO_T5, load_dit, make_dit, save_dit, start_pipeline, words
from refdiff_lite.toy.scenes import make_scene
from refdiff_lite.toy.train_dit import caption_losses, encode, noun_hits
from studies.measure_dit import gain

SCENES = [make_scene("val", i) for i in range(4)]


def weights(pipe):
    return torch.cat([p.detach().flatten() for m in (pipe.transformer, pipe.text_encoder) for p in m.parameters()])


@pytest.fixture
def pipe():
    return start_pipeline(layers=1)


@pytest.fixture
def small(monkeypatch):
    """Four scenes and random latents in the place of 20,000, batches of 4, and two val scenes to look at."""
    images, things = np.stack([s.image for s in SCENES]), [s.things for s in SCENES]
    latents = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(train_dit, "load_scenes", lambda *_: (images, things))
    monkeypatch.setattr(train_dit, "encode_all", lambda *_: latents)
    monkeypatch.setattr(train_dit, "BATCH", 4)
    monkeypatch.setattr(train_dit, "LOOKED_AT", 2)


def run(folder, pipe, **changes):
    train_dit.train_dit(folder, pipe, **({"steps": 6, "every": 3} | changes))
    return weights(pipe)


def test_a_resumed_run_ends_with_the_same_bits(tmp_path, small):
    before = weights(start_pipeline(1))
    whole = run(tmp_path / "whole", start_pipeline(1))
    half = run(tmp_path / "parts", start_pipeline(1), stop_at=3)
    assert torch.equal(run(tmp_path / "parts", start_pipeline(1)), whole)
    assert not torch.equal(half, whole)
    assert not torch.equal(half, before)
    rows = [json.loads(line) for line in (tmp_path / "parts" / "dit" / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [3, 6]
    assert all(math.isfinite(v) for r in rows for v in r.values())
    assert {"gain_0.6", "localisation", "tinted", "block_0"} <= rows[0].keys()


def test_the_loss_goes_down(tmp_path, small, pipe):
    x0, texts = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(1)), [""] * 4
    before = caption_losses(pipe, x0, texts, 0.6)[0].mean()
    run(tmp_path, pipe, steps=60, every=60)
    assert caption_losses(pipe, x0, texts, 0.6)[0].mean() < 0.98 * before


def test_training_starts_from_saved_weights(tmp_path, small, pipe):
    run(tmp_path / "first", pipe)
    save_dit(pipe, tmp_path / "saved")
    started = load_dit(tmp_path / "saved")
    assert not torch.equal(weights(started), weights(start_pipeline(1)))
    train_dit.main(
        work=tmp_path / "second", out=tmp_path / "again", start=tmp_path / "saved", steps=1, stop_at=None, every=1,
        scenes=4, bf16=False,
    )  # fmt: skip
    again = load_dit(tmp_path / "again")
    moved = (weights(again) - weights(started)).abs()
    assert 0 < moved.max() < 0.01  # one warming-up step away, so not from scratch
    assert (tmp_path / "again" / "log.jsonl").read_text().count("\n") == 1


def test_what_is_saved_loads_as_an_ordinary_pipeline(tmp_path, pipe):
    torch.nn.init.normal_(pipe.transformer.proj_out.weight, std=0.1)
    save_dit(pipe, tmp_path / "dit")
    loaded = load_dit(tmp_path / "dit")
    torch.testing.assert_close(weights(loaded), weights(pipe), atol=1e-3, rtol=1e-3)
    no_t5 = {"text_encoder_3": None, "tokenizer_3": None}
    vae, text, tokenizer = loaded.vae, loaded.text_encoder, loaded.tokenizer
    ordinary = StableDiffusion3Pipeline.from_pretrained(
        tmp_path / "dit", vae=vae, text_encoder_2=text, tokenizer=tokenizer, tokenizer_2=tokenizer, **no_t5
    ).to(torch.float32)
    ordinary.set_progress_bar_config(disable=True)
    loaded.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 2, "output_type": "np"} | NO_T5
    images = [p("a red cup", generator=torch.Generator().manual_seed(0), **call).images for p in (loaded, ordinary)]
    np.testing.assert_allclose(*images, atol=1e-3)
    assert images[0].shape == (1, 128, 128, 3)
    assert sorted(p.name for p in (tmp_path / "dit").iterdir()) == [
        "model_index.json", "scheduler", "text_encoder", "transformer",
    ]  # fmt: skip


def test_words_are_what_the_pipeline_reads_and_the_pooled_vector_is_zero(pipe):
    texts = ["a red cup", "the dog on the left"]
    theirs, _, pooled, _ = pipe.encode_prompt(texts, None, None, do_classifier_free_guidance=False, **NO_T5)
    torch.testing.assert_close(words(pipe, texts), theirs)
    assert not pooled.any()
    assert pooled.shape == (2, pipe.transformer.config.pooled_projection_dim)


@pytest.mark.parametrize("name", ["transformer/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "another"])
def test_damaged_weights_are_refused_with_words(tmp_path, pipe, name, damage):
    folder = tmp_path / "dit"
    save_dit(pipe, folder)
    file = folder / name
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        other = "text_encoder/model.safetensors" if "transformer" in name else folder / "transformer"
        source = folder / other if isinstance(other, str) else other / "diffusion_pytorch_model.safetensors"
        file.write_bytes(source.read_bytes())
    with pytest.raises(OSError, match=r"holds no whole toy-dit .*install again"):
        load_dit(folder)


@pytest.mark.parametrize("damage", ["cut", "empty", "another model", "another optimizer"])
def test_a_damaged_checkpoint_is_refused_with_words(tmp_path, small, damage):
    run(tmp_path, start_pipeline(1), steps=2, every=2)
    file = tmp_path / "dit" / "checkpoint.pt"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1000])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "another optimizer":
        state = torch.load(file, weights_only=True)
        torch.save(state | {"optimizers": state["optimizers"][:1]}, file)
    with pytest.raises(ValueError, match=r"cannot be resumed .*damaged, or another model's"):
        run(tmp_path, start_pipeline(2 if damage == "another model" else 1), steps=4)


def test_bfloat16_trains_nearly_the_same(tmp_path, small):
    full, half = (run(tmp_path / str(bf16), start_pipeline(1), bf16=bf16) for bf16 in (False, True))
    rows = [json.loads((tmp_path / str(b) / "dit" / "log.jsonl").read_text().split("\n")[1]) for b in (False, True)]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-3)
    assert 0 < (full - half).abs().max() < 0.05


def test_plain_attention_is_the_fused_one():
    q, k, v = torch.randn(3, 2, 4, 10, 8).unbind()
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    with train_dit._Unfused():
        torch.testing.assert_close(torch.nn.functional.scaled_dot_product_attention(q, k, v), fused)


def test_blocks_begin_as_the_identity_and_the_output_as_zero():
    torch.manual_seed(0)
    dit = make_dit(layers=2)
    x, text = torch.randn(1, 4, 16, 16), torch.randn(1, 24, 256)
    assert not dit(x, text, torch.zeros(1, 256), torch.tensor([500.0]), return_dict=False)[0].any()
    hidden = dit.pos_embed(x)
    temb = dit.time_text_embed(torch.tensor([500.0]), torch.zeros(1, 256))
    assert torch.equal(dit.transformer_blocks[0](hidden, dit.context_embedder(text), temb)[1], hidden)


def test_noun_hits_counts_the_map_that_picks_its_thing(pipe, monkeypatch):
    """With maps painted by hand: attention to the noun lies on its true mask in one run, on another thing's in the other."""
    scene = next(s for s in SCENES if len({t.category for t in s.things}) == len(s.things) > 2)
    small = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(scene.masks).float(), 16)

    def painted(turn):
        maps = small.roll(turn, 0)[..., None].expand(-1, -1, -1, 24)
        return nullcontext(AttentionMaps("cross", "softmax", {"block": maps}))

    for turn, right in ((0, True), (1, False)):
        monkeypatch.setattr(train_dit, "record_attention", lambda _, turn=turn: painted(turn))
        hits = noun_hits(pipe, [scene], 0.1)
        assert len(hits) == len(scene.things)
        assert all(h.right() == h.right([0]) == right and h.chance == 1 / len(scene.things) for h in hits)
        assert [h.tinted for h in hits] == [t.tint is not None for t in scene.things]


def test_gain_is_the_share_of_the_loss_that_the_right_caption_saves():
    assert gain(np.array([[1.0, 2.0], [2.0, 4.0]])) == pytest.approx(0.5)


def test_latents_are_scaled_as_in_training(pipe):
    assert isinstance(pipe.vae, AutoencoderKL)
    found = encode(pipe, SCENES[0])
    assert found.shape == (1, 4, 16, 16)
    assert 0.5 < found.std() < 2
