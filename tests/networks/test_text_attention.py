"""What tokens attend to inside a text encoder, held to what transformers and open_clip say themselves."""

from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from tiny_pipelines import clip_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from refdiff_lite.networks import load
from refdiff_lite.networks.networks import Networks
from refdiff_lite.networks.text_attention import _clip_tokens, attend_text

TEXT = "the small grey dog on the left"


@pytest.fixture(scope="module")
def toy():
    return load("toy")


def own_words(encoder, ids):
    """The encoder's own report; only the eager kernel gives one."""
    kernel = encoder.config._attn_implementation
    encoder.set_attn_implementation("eager")
    with torch.no_grad():
        found = encoder(ids, output_attentions=True).attentions
    encoder.set_attn_implementation(kernel)
    return found


@pytest.mark.parametrize("text", [TEXT, "dog", "a dog " * 60])
def test_the_toys_text_encoder_says_the_same_itself(toy, text):
    found = attend_text(toy, text)
    ids = toy.tokenizer(text, truncation=True, max_length=toy.tokenizer.model_max_length, return_tensors="pt").input_ids
    expected = own_words(toy.sd.text_encoder, ids)
    assert len(found.maps) == len(expected) == toy.sd.text_encoder.config.num_hidden_layers
    for ours, theirs in zip(found.maps, expected, strict=True):
        assert ours.shape == (theirs.shape[1], len(found.tokens), len(found.tokens))
        assert np.abs(ours - theirs[0].numpy()).max() < 1e-5
    assert bool(found.unread) == (len(text) > 200)


def test_padding_changes_nothing(toy):
    """The pipeline pads its prompts; in CLIP nobody looks at what stands behind."""
    found = attend_text(toy, TEXT)
    ids = toy.tokenizer(TEXT, padding="max_length", return_tensors="pt").input_ids
    n = len(found.tokens)
    assert ids.shape[1] > n
    for ours, theirs in zip(found.maps, own_words(toy.sd.text_encoder, ids), strict=True):
        assert np.abs(ours - theirs[0, :, :n, :n].numpy()).max() < 1e-5


@pytest.mark.parametrize("kind", [CLIPTextModel, CLIPTextModelWithProjection])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_clip_encoders_beside_it(toy, kind, dtype):
    """SDXL's second encoder: more heads, a projection; in half precision as on a GPU."""
    tokenizer = clip_tokenizer(16)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=32, num_hidden_layers=2, num_attention_heads=6,
        max_position_embeddings=16, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    encoder = kind(config).eval().to(dtype)
    parts = dict(text_encoder=toy.sd.text_encoder, text_encoder_2=encoder)
    nets = Networks(
        SimpleNamespace(
            **parts, components=parts, unet=toy.sd.unet, tokenizer=toy.tokenizer, tokenizer_2=tokenizer,
            _execution_device=torch.device("cpu"),
        ),
        toy.clip, toy.clip_tokenizer, toy.clip_mean, toy.clip_std, 128,
    )  # fmt: skip
    found = attend_text(nets, "a dog left of a cat", "text_encoder_2")
    expected = own_words(encoder, tokenizer("a dog left of a cat", return_tensors="pt").input_ids)
    for ours, theirs in zip(found.maps, expected, strict=True):
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs[0].float().numpy()).max() < (1e-5 if dtype == torch.float32 else 5e-3)


@pytest.mark.parametrize("text", [TEXT, "dog " * 100])
def test_open_clips_tower_by_its_own_weights(toy, text):
    """The tower that ranks proposals: probabilities from its own matrices, computed by hand."""
    found = attend_text(toy, text, "clip")
    tower, n = toy.clip, len(found.tokens)
    with torch.no_grad():
        ids = toy.clip_tokenizer([text])
        hidden = tower.token_embedding(ids) + tower.positional_embedding[: ids.shape[1]]
        for block, ours in zip(tower.transformer.resblocks, found.maps, strict=True):
            attention = block.attn
            q, k, _ = (
                torch.nn.functional.linear(block.ln_1(hidden), attention.in_proj_weight, attention.in_proj_bias)[0]
                .reshape(ids.shape[1], 3, attention.num_heads, -1)
                .permute(1, 2, 0, 3)
            )
            logits = q @ k.mT / q.shape[-1] ** 0.5 + tower.attn_mask[: ids.shape[1], : ids.shape[1]]
            assert np.abs(ours - logits.softmax(-1)[:, :n, :n].numpy()).max() < 1e-5
            hidden = block(hidden, attn_mask=tower.attn_mask[: ids.shape[1], : ids.shape[1]])
    assert bool(found.unread) == (len(text) > 200)


def test_open_clips_own_tokenizer_is_read_too():
    """SD 1.5's preset comes with it; the toy's is Hugging Face's."""
    own = open_clip.SimpleTokenizer()
    ids, tokens, unread = _clip_tokens(own, "a small chihuahua")
    assert (tokens[1:3], unread) == (("a", "small"), "")
    assert "".join(tokens[3:-1]) == "chihuahua"
    assert ids[0, len(tokens) - 1] == own.eot_token_id
    _, tokens, unread = _clip_tokens(own, "dog " * 100)
    assert len(tokens) == 77
    assert unread.split() == ["dog"] * 25


def test_means_are_over_what_they_say(toy):
    found = attend_text(toy, TEXT)
    assert np.allclose(found.at(1), found.maps[1].mean(0))
    assert np.allclose(found.at(), np.mean([m.mean(0) for m in found.maps], 0))
    assert np.allclose(found.at(2, 3), found.maps[2][3])
    assert np.allclose(found.at(0, 0).sum(-1), 1, atol=1e-5)
    assert not np.triu(found.at(), 1).any()  # CLIP's text tower is causal


def test_nothing_is_left_behind(toy):
    before = [len(m._forward_hooks) for m in toy.sd.text_encoder.modules()]
    attend_text(toy, TEXT)
    assert [len(m._forward_hooks) for m in toy.sd.text_encoder.modules()] == before


def test_what_cannot_be_shown_is_refused(toy):
    found = attend_text(toy, TEXT)
    for layer, head, why in ((9, -1, "layers 0 to 2"), (0, 9, "heads 0 to"), (-1, 0, "choose a layer too")):
        with pytest.raises(ValueError, match=why):
            found.at(layer, head)
    with pytest.raises(ValueError, match="empty"):
        attend_text(toy, "  ")
    with pytest.raises(ValueError, match="no such text encoder; choose 'text_encoder' or 'clip'"):
        attend_text(toy, TEXT, "text_encoder_2")
    with pytest.raises(ValueError, match="no such text encoder"):
        attend_text(toy, TEXT, "unet")
