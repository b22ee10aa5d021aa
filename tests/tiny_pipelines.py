"""Tiny untrained pipelines of diffusers' own classes, with text encoders and tokenizers of the real kinds."""

import inspect
from functools import cache

import pytest
import tiny
import torch

SENTENCES = [
    "a dog left of a cat",
    "two red cars and a truck",
    "the quick brown fox jumps over a lazy dog",
    "blurry",
] * 9
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def clip_tokenizer(length=16):
    """CLIP's byte-level pieces; few of them, so that words have several."""
    from refdiff_lite.toy.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(SENTENCES)
    tokenizer.model_max_length = length
    return tokenizer


@cache
def _t5():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    model = Tokenizer(models.Unigram())
    model.pre_tokenizer, model.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    model.train_from_iterator(SENTENCES, trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    ))  # fmt: skip
    model.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return model


def t5_tokenizer():
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=_t5(), pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=20
    )


@cache
def _llm():
    from tokenizers import ByteLevelBPETokenizer

    model = ByteLevelBPETokenizer()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    model.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=special, show_progress=False)
    return model._tokenizer


def llm_tokenizer(**more):
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_llm(), pad_token="<|endoftext|>", eos_token="<|im_end|>", model_max_length=512,
        additional_special_tokens=["<|im_start|>"], **more,
    )  # fmt: skip
    tokenizer.chat_template = CHAT
    return tokenizer


def clip_encoder(tokenizer, width, projection=None):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=8, num_hidden_layers=2, num_attention_heads=1,
        max_position_embeddings=tokenizer.model_max_length, projection_dim=projection or width,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def t5_encoder(tokenizer, width=6):
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=3, d_ff=8, num_layers=1, num_heads=2)
    ).eval()


def llm_encoder(tokenizer, width=6):
    from transformers import Qwen3Config, Qwen3Model

    return Qwen3Model(Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4,
    )).eval()  # fmt: skip


def flow():
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler()


def build(name, **parts):
    import diffusers

    if not hasattr(diffusers, name):
        pytest.skip(f"this diffusers has no {name}")
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    pipe = kind(**{"vae": None} | {k: v for k, v in parts.items() if k in known})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sd1():
    from diffusers import DDIMScheduler

    tokenizer = clip_tokenizer()
    parts = dict(
        unet=tiny.sd1().model,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        text_encoder=clip_encoder(tokenizer, 12),
    )
    return build(
        "StableDiffusionPipeline", tokenizer=tokenizer, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, **parts,
    ), dict(guidance_scale=3.0, height=64, width=192)  # fmt: skip


def sdxl():
    from diffusers import EulerDiscreteScheduler

    tokenizer = clip_tokenizer()
    pipe = build(
        "StableDiffusionXLPipeline", unet=tiny.sdxl().model, scheduler=EulerDiscreteScheduler(), tokenizer=tokenizer,
        tokenizer_2=tokenizer, text_encoder=clip_encoder(tokenizer, 2), text_encoder_2=clip_encoder(tokenizer, 10, 10),
        add_watermarker=False,
    )  # fmt: skip
    return pipe, dict(guidance_scale=3.0, height=48, width=80)


def pixart():
    from diffusers import DPMSolverMultistepScheduler

    tokenizer = t5_tokenizer()
    pipe = build(
        "PixArtAlphaPipeline", transformer=tiny.pixart().model, scheduler=DPMSolverMultistepScheduler(),
        tokenizer=tokenizer, text_encoder=t5_encoder(tokenizer),
    )  # fmt: skip
    return pipe, dict(guidance_scale=3.0, height=64, width=96, use_resolution_binning=False, max_sequence_length=20)


def sana():
    tokenizer = llm_tokenizer()
    pipe = build(
        "SanaPipeline", transformer=tiny.sana().model, scheduler=flow(), tokenizer=tokenizer,
        text_encoder=llm_encoder(tokenizer),
    )  # fmt: skip
    return pipe, dict(
        guidance_scale=3.0, height=96, width=160, use_resolution_binning=False, max_sequence_length=40,
        complex_human_instruction=["describe a dog", "User Prompt: "],
    )  # fmt: skip


def sd3():
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    pipe = build(
        "StableDiffusion3Pipeline", transformer=tiny.sd3().model, scheduler=flow(), tokenizer=clip, tokenizer_2=clip,
        tokenizer_3=t5, text_encoder=clip_encoder(clip, 2, 2), text_encoder_2=clip_encoder(clip, 3, 3),
        text_encoder_3=t5_encoder(t5),
    )  # fmt: skip
    return pipe, dict(guidance_scale=3.0, height=64, width=96, max_sequence_length=20)


def flux():
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    pipe = build(
        "FluxPipeline", transformer=tiny.flux().model, scheduler=flow(), tokenizer=clip, tokenizer_2=t5,
        text_encoder=clip_encoder(clip, 5), text_encoder_2=t5_encoder(t5),
    )  # fmt: skip
    return pipe, dict(true_cfg_scale=3.0, height=48, width=80, max_sequence_length=20)


def flux2():
    tokenizer = llm_tokenizer()
    model = tiny.flux2(joint_attention_dim=18).model
    vae = tiny.make(
        "AutoencoderKLFlux2", block_out_channels=(4,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=1, norm_num_groups=2, layers_per_block=1,
    )  # fmt: skip
    pipe = build(
        "Flux2KleinPipeline", transformer=model, scheduler=flow(), tokenizer=tokenizer, text_encoder=llm_encoder(tokenizer),
        is_distilled=False, vae=vae,
    )  # fmt: skip
    return pipe, dict(
        guidance_scale=3.0, height=48, width=80, max_sequence_length=40, text_encoder_out_layers=(0, 1, 2)
    )


def qwen():
    tokenizer = llm_tokenizer()
    pipe = build(
        "QwenImagePipeline", transformer=tiny.qwen().model, scheduler=flow(), tokenizer=tokenizer,
        text_encoder=llm_encoder(tokenizer),
    )  # fmt: skip
    pipe.prompt_template_encode = "<|im_start|>system\nDescribe a dog<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    start = pipe.prompt_template_encode[: pipe.prompt_template_encode.index("{}")]
    pipe.prompt_template_encode_start_idx = len(tokenizer(start).input_ids)
    return pipe, dict(true_cfg_scale=3.0, height=48, width=80)


def lumina2():
    tokenizer = llm_tokenizer()
    pipe = build(
        "Lumina2Pipeline", transformer=tiny.lumina2(axes_lens=(300, 32, 32)).model, scheduler=flow(), tokenizer=tokenizer,
        text_encoder=llm_encoder(tokenizer),
    )  # fmt: skip
    return pipe, dict(guidance_scale=3.0, height=48, width=80, max_sequence_length=200, system_prompt="Describe a dog.")


def z_image():
    tokenizer = llm_tokenizer()
    pipe = build(
        "ZImagePipeline", transformer=tiny.z_image().model, scheduler=flow(), tokenizer=tokenizer,
        text_encoder=llm_encoder(tokenizer),
    )  # fmt: skip
    return pipe, dict(guidance_scale=3.0, height=48, width=80, max_sequence_length=60)


PIPELINES = {f.__name__: f for f in (sd1, sdxl, pixart, sana, sd3, flux, flux2, qwen, lumina2, z_image)}


def paint(pipe, call, prompt, **more):
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        given = {"prompt": prompt, **call, **more}
        given = {k: list(v) if isinstance(v, list) else v for k, v in given.items()}  # Z-Image's changes those
        return pipe(num_inference_steps=3, generator=generator, output_type="latent", return_dict=False, **given)[0]


PROMPT, OTHER, NEGATIVE = "a dog left of a cat", "two red trucks", "blurry dog"
ORDER = (
    dict.fromkeys(PIPELINES, "-+") | dict.fromkeys(("flux", "flux2", "qwen", "lumina2"), "calls") | {"z_image": "+-"}
)
"""Of the empty and the given prompt in a guided batch, as the pipelines' sources have it."""


def refused(name):
    """Arguments of a negative prompt; Klein has only the empty one."""
    return {} if name == "flux2" else {"negative_prompt": NEGATIVE}


def calls_of(pipe, call, *args, **more):
    """Arguments of every call of the model in one generation, without tracing."""
    from refdiff_lite.networks import words

    model, seen = words.model_of(pipe), []
    signature = inspect.signature(type(model).forward)
    handle = model.register_forward_pre_hook(
        lambda m, a, k: seen.append(dict(signature.bind(m, *a, **k).arguments)), with_kwargs=True
    )
    paint(pipe, call, *args, **more)
    handle.remove()
    return seen


def with_vae(name):
    """A pipeline with a tiny VAE of its own kind, so that it can begin with a picture, and what its calls need."""
    torch.manual_seed(0)
    plain, call = PIPELINES[name]()
    call = {
        k: v
        for k, v in call.items()
        if k in ("max_sequence_length", "text_encoder_out_layers", "complex_human_instruction")
    }
    model = plain.components.get("transformer", plain.components.get("unet"))
    channels = model.config.in_channels // {"flux": 4, "qwen": 4}.get(name, 1)
    if name == "flux2":
        calm(plain.vae)
        return plain, call
    if name == "sana":
        vae = tiny.make(
            "AutoencoderDC", latent_channels=channels, attention_head_dim=2, encoder_block_out_channels=(4,) * 6,
            decoder_block_out_channels=(4,) * 6, encoder_layers_per_block=(1,) * 6, decoder_layers_per_block=(1,) * 6,
            encoder_block_types="ResBlock", decoder_block_types="ResBlock", encoder_qkv_multiscales=((),) * 6,
            decoder_qkv_multiscales=((),) * 6, scaling_factor=0.41,
        )  # fmt: skip
    elif name == "qwen":
        vae = tiny.make(
            "AutoencoderKLQwenImage", base_dim=4, z_dim=channels, num_res_blocks=1, latents_mean=[0.1] * channels,
            latents_std=[2.0] * channels,
        )  # fmt: skip
    else:
        vae = tiny.make(
            "AutoencoderKL", block_out_channels=(4,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, norm_num_groups=2,
            up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=channels, layers_per_block=1, shift_factor=0.1,
        )  # fmt: skip
    calm(vae)
    more = {"requires_safety_checker": False} if name == "sd1" else {}
    return type(plain)(**plain.components | {"vae": vae}, **more), call


@torch.no_grad()
def calm(vae):
    """Let random weights encode as trained ones do: latents of a picture with hardly a variance of their own, about 1 in all."""
    for conv in (getattr(vae, "quant_conv", None),):
        if conv is not None:
            conv.weight[len(conv.weight) // 2 :] = 0
            conv.bias[len(conv.bias) // 2 :] = -30
    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = vae.encode(x[:, :, None] if vae.config.get("latents_mean") else x)
    z = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latent
    if vae.config.get("latents_mean"):
        per = z.transpose(0, 1).flatten(1)
        vae.register_to_config(latents_mean=per.mean(1).tolist(), latents_std=per.std(1).tolist())
    elif hasattr(vae, "bn"):
        vae.bn.running_mean[:], vae.bn.running_var[:] = z.mean(), z.var()
    else:
        vae.register_to_config(scaling_factor=1 / z.std().item())
