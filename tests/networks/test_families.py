"""The families that the recorder knows: their modules, and where text and image stand."""

import pytest
import torch

from refdiff_lite.attention import record_attention
from refdiff_lite.networks.families import attention_modules
from refdiff_lite.networks.scores import Wanted


def test_every_attention_module_has_a_name_of_its_own(models):
    """The real sizes, without weights."""
    import diffusers

    with torch.device("meta"):
        sdxl = diffusers.UNet2DConditionModel(
            block_out_channels=(320, 640, 1280), cross_attention_dim=2048, attention_head_dim=(5, 10, 20),
            transformer_layers_per_block=(1, 2, 10), addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816, use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        flux = diffusers.FluxTransformer2DModel()
        qwen = diffusers.QwenImageTransformer2DModel()
    assert len(attention_modules(sdxl)) == len(attention_modules(sdxl, "self")) == 70
    assert "mid_block.attentions.0.transformer_blocks.9" in attention_modules(sdxl)
    assert len(attention_modules(flux)) == 19 + 38
    assert "single_transformer_blocks.37" in attention_modules(flux)
    assert len(attention_modules(qwen)) == 60
    model = models("sdxl").model
    theirs = [m for n, m in model.named_modules() if n.endswith("attn2")]
    assert list(attention_modules(model).values()) == theirs
    assert len(theirs) == 11


def test_an_attention_of_the_image_alone_is_not_taken_for_cross_attention(models):
    model = models("sd35").model
    assert set(attention_modules(model)) == {f"transformer_blocks.{i}" for i in range(3)}
    assert {"transformer_blocks.0.attn2", "transformer_blocks.1.attn2"} < set(attention_modules(model, "self"))


def test_what_a_family_lacks_is_refused_with_its_reason(models):
    with (
        pytest.raises(ValueError, match="linear, without a softmax"),
        record_attention(models("sana").model, kind="self"),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"words are only keys.*choose cross or self"),
        record_attention(models("sd1").model, kind="text"),
    ):
        pass
    # The type checker around record_attention would be first to refuse these.
    for wrong in (dict(kind="pixel"), dict(scores="probabilities"), dict(over="words"), dict(heads="all")):
        with pytest.raises(ValueError, match="choose"):
            Wanted(**{"kind": "cross"} | wrong)
