"""Tiny untrained models of every family that the recorder knows, of diffusers' own classes, with inputs that fit them."""

import inspect
from typing import NamedTuple

import pytest
import torch


class Tiny(NamedTuple):
    """A model, the arguments of its call, the grid of its image tokens, and how many words each row has."""

    model: torch.nn.Module
    inputs: dict
    grid: tuple[int, int]
    words: list[int]

    def __call__(self, **changes):
        with torch.no_grad():
            out = self.model(**self.inputs | changes, return_dict=False)[0]
        return torch.stack(list(out)) if isinstance(out, list) else out


def make(name, **config):
    """The model with random weights everywhere: biases and gates of diffusion transformers start at zero."""
    import diffusers

    if not hasattr(diffusers, name):
        pytest.skip(f"this diffusers has no {name}")
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    generator = torch.Generator().manual_seed(0)
    model = kind(**{k: v for k, v in config.items() if k in known}).eval().requires_grad_(False)
    for p in model.parameters():
        p.copy_(torch.randn(p.shape, generator=generator) * (0.3 if p.ndim > 1 else 0.1) + (p.ndim == 1))
    return model


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def ids(h, w, first=0, axes=3):
    grid = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), -1).reshape(-1, 2)
    return torch.nn.functional.pad(torch.cat([torch.full((h * w, 1), first), grid], 1), (0, axes - 3)).float()


def mask(lengths, longest):
    return torch.tensor([[int(i < n) for i in range(longest)] for n in lengths])


def sd1():
    model = make(
        "UNet2DConditionModel", block_out_channels=(8, 8, 16, 16), cross_attention_dim=12, attention_head_dim=2,
        norm_num_groups=4, sample_size=24,
    )  # fmt: skip
    return Tiny(
        model, dict(sample=normal(2, 4, 8, 24), timestep=5, encoder_hidden_states=normal(2, 7, 12)), (8, 24), [7, 7]
    )


def sdxl():
    """The layout of SDXL's blocks, with fewer transformers in each: 2, 3 where there are 2, 10."""
    model = make(
        "UNet2DConditionModel", block_out_channels=(8, 8, 16), cross_attention_dim=12, attention_head_dim=(1, 2, 4),
        norm_num_groups=4, transformer_layers_per_block=(1, 1, 2), addition_embed_type="text_time",
        addition_time_embed_dim=4, projection_class_embeddings_input_dim=34, use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), layers_per_block=1,
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    inputs = dict(
        sample=normal(2, 4, 6, 10), timestep=5, encoder_hidden_states=normal(2, 7, 12),
        added_cond_kwargs=dict(text_embeds=normal(2, 10), time_ids=normal(2, 6)),
    )  # fmt: skip
    return Tiny(model, inputs, (3, 5), [7, 7])


def pixart():
    model = make(
        "PixArtTransformer2DModel", num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=2,
        cross_attention_dim=8, sample_size=8, patch_size=2, caption_channels=6, use_additional_conditions=False,
    )  # fmt: skip
    inputs = dict(
        hidden_states=normal(2, 4, 8, 12), encoder_hidden_states=normal(2, 7, 6), timestep=torch.tensor([5, 5]),
        encoder_attention_mask=mask([3, 6], 7), added_cond_kwargs=dict(resolution=None, aspect_ratio=None),
    )  # fmt: skip
    return Tiny(model, inputs, (4, 6), [7, 7])


def sana():
    model = make(
        "SanaTransformer2DModel", in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=4, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=6, sample_size=8,
        patch_size=1, qk_norm="rms_norm_across_heads",
    )  # fmt: skip
    inputs = dict(
        hidden_states=normal(2, 4, 3, 5), encoder_hidden_states=normal(2, 7, 6), timestep=torch.tensor([5, 5]),
        encoder_attention_mask=mask([3, 6], 7),
    )  # fmt: skip
    return Tiny(model, inputs, (3, 5), [7, 7])


def sd3(**more):
    model = make(
        "SD3Transformer2DModel", sample_size=16, patch_size=2, in_channels=4, num_layers=3, attention_head_dim=4,
        num_attention_heads=2, joint_attention_dim=6, caption_projection_dim=8, pooled_projection_dim=5, out_channels=4,
        **more,
    )  # fmt: skip
    inputs = dict(
        hidden_states=normal(2, 4, 8, 12), encoder_hidden_states=normal(2, 7, 6), pooled_projections=normal(2, 5),
        timestep=torch.tensor([5, 5]),
    )  # fmt: skip
    return Tiny(model, inputs, (4, 6), [7, 7])


def sd35():
    return sd3(qk_norm="rms_norm", dual_attention_layers=(0, 1))


def flux():
    """With the tokens of a picture to edit behind its own."""
    model = make(
        "FluxTransformer2DModel", in_channels=4, num_layers=2, num_single_layers=3, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=6, pooled_projection_dim=5, guidance_embeds=False, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    inputs = dict(
        hidden_states=normal(2, 15 + 6, 4), encoder_hidden_states=normal(2, 7, 6), pooled_projections=normal(2, 5),
        timestep=torch.tensor([0.5, 0.5]), img_ids=torch.cat([ids(3, 5), ids(2, 3, first=1)]), txt_ids=torch.zeros(7, 3),
    )  # fmt: skip
    return Tiny(model, inputs, (3, 5), [7, 7])


def flux2(joint_attention_dim=6):
    model = make(
        "Flux2Transformer2DModel", in_channels=4, num_layers=2, num_single_layers=3, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=joint_attention_dim, axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )  # fmt: skip
    words = torch.nn.functional.pad(torch.arange(7.0)[:, None], (3, 0))
    inputs = dict(
        hidden_states=normal(2, 15 + 6, 4), encoder_hidden_states=normal(2, 7, 6), timestep=torch.tensor([0.5, 0.5]),
        img_ids=torch.cat([ids(3, 5, axes=4), ids(2, 3, 10, 4)]).expand(2, -1, -1), txt_ids=words.expand(2, -1, -1),
    )  # fmt: skip
    return Tiny(model, inputs, (3, 5), [7, 7])


def qwen():
    model = make(
        "QwenImageTransformer2DModel", in_channels=4, out_channels=1, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=6, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    inputs = dict(
        hidden_states=normal(2, 15, 4), encoder_hidden_states=normal(2, 7, 6), timestep=torch.tensor([0.5, 0.5]),
        encoder_hidden_states_mask=mask([3, 7], 7).bool(), img_shapes=[[(1, 3, 5)]] * 2,
    )  # fmt: skip
    if "txt_seq_lens" in inspect.signature(type(model).forward).parameters:
        inputs["txt_seq_lens"] = [7, 7]
    return Tiny(model, inputs, (3, 5), [7, 7])


def lumina2(axes_lens=(30, 32, 32)):
    model = make(
        "Lumina2Transformer2DModel", sample_size=8, patch_size=2, in_channels=4, hidden_size=24, num_layers=2,
        num_refiner_layers=1, num_attention_heads=2, num_kv_heads=1, axes_dim_rope=(4, 4, 4), axes_lens=axes_lens,
        cap_feat_dim=6, multiple_of=8,
    )  # fmt: skip
    inputs = dict(
        hidden_states=normal(2, 4, 6, 10), encoder_hidden_states=normal(2, 7, 6), timestep=torch.tensor([0.5, 0.5]),
        encoder_attention_mask=mask([3, 7], 7),
    )  # fmt: skip
    return Tiny(model, inputs, (3, 5), [3, 7])


def z_image():
    model = make(
        "ZImageTransformer2DModel", in_channels=4, dim=24, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
        cap_feat_dim=6, axes_dims=[4, 4, 4], axes_lens=[128, 32, 32],
    )  # fmt: skip
    inputs = dict(x=[normal(4, 1, 6, 10), normal(4, 1, 6, 10) + 1], t=torch.tensor([0.5, 0.5]))
    return Tiny(model, inputs | dict(cap_feats=[normal(3, 6), normal(40, 6)]), (3, 5), [3, 40])


MODELS = {f.__name__: f for f in (sd1, sdxl, pixart, sana, sd3, sd35, flux, flux2, qwen, lumina2, z_image)}
JOINT = ("sd3", "sd35", "flux", "flux2", "qwen", "lumina2", "z_image")
