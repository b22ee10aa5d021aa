"""Repositories as the hub has them, filled with noise: the true files, classes, layers and tensor names, narrow by default.

``python -m standin_weights FOLDER segment …`` is refdiff-lite for a user whose hub serves FOLDER: the table of weights expects
these files' sizes, and open_clip's two architectures are as narrow as the files.
"""

import copy
import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

from refdiff_lite.networks import hub
from refdiff_lite.networks.presets import CLIP_MODELS

START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer_files(folder: Path) -> None:
    """CLIP's own tokenizer, from the vocabulary inside open_clip's wheel."""
    import open_clip

    table = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.decompress(table.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = [*letters, *(c + "</w>" for c in letters), *(m.replace(" ", "") for m in merges), START, END]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    names = dict(bos_token=START, eos_token=END, unk_token=END, pad_token=END)
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    names |= dict(model_max_length=77, tokenizer_class="CLIPTokenizer")
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def stable_diffusion(folder: Path, width: int) -> None:
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    up, down = ["UpBlock2D"] + 3 * ["CrossAttnUpBlock2D"], 3 * ["CrossAttnDownBlock2D"] + ["DownBlock2D"]
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(width, 2 * width, 4 * width, 4 * width), cross_attention_dim=width * 12 // 5,
        attention_head_dim=8, down_block_types=down, up_block_types=up, norm_num_groups=min(32, width),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=tuple(width * 2 // 5 * n for n in (1, 2, 4, 4)), layers_per_block=2, latent_channels=4,
        down_block_types=4 * ["DownEncoderBlock2D"], up_block_types=4 * ["UpDecoderBlock2D"], sample_size=512,
        norm_num_groups=min(32, width * 2 // 5),
    )  # fmt: skip
    size = width * 12 // 5
    text = CLIPTextModel(CLIPTextConfig(
        hidden_size=size, intermediate_size=4 * size, num_hidden_layers=12, num_attention_heads=12, projection_dim=size,
        vocab_size=49408, max_position_embeddings=77, bos_token_id=49406, eos_token_id=49407, pad_token_id=1,
    ))  # fmt: skip
    for name, part in {"unet": unet, "vae": vae, "text_encoder": text}.items():
        part.half().save_pretrained(folder / name, variant="fp16")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    clip_tokenizer_files(folder / "tokenizer")
    classes = {
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"], "safety_checker": [None, None], "feature_extractor": [None, None],
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"} | classes))


def clip(folder: Path, config: dict) -> None:
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])
    save_file(model.state_dict(), folder / "open_clip_model.safetensors", {"format": "pt"})


def sam(folder: Path, width: int, layers: int, decoder: int) -> None:
    from transformers import SamConfig, SamImageProcessor, SamModel

    vision = dict(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(1, width // 64), mlp_dim=4 * width,
        output_channels=decoder, num_pos_feats=decoder // 2,
    )  # fmt: skip
    inner = dict(hidden_size=decoder, mlp_dim=8 * decoder, iou_head_hidden_dim=decoder)
    config = SamConfig(vision_config=vision, prompt_encoder_config={"hidden_size": decoder}, mask_decoder_config=inner)
    SamModel(config).save_pretrained(folder)
    SamImageProcessor().save_pretrained(folder)


def clip_config(name: str, full: bool) -> dict:
    """open_clip's architecture; with few channels and all its layers if it is not to be full."""
    import open_clip

    config = copy.deepcopy(open_clip.get_model_config(name))
    if not full:
        config["embed_dim"] = 32
        config["vision_cfg"] |= {"width": 64}
        config["text_cfg"] |= {"width": 32, "heads": 4}
    return config


def write_weights(folder: Path, full: bool = False) -> Path:
    """All repositories of the table, at full size or narrow; SAM is the base one's layers in either name when narrow."""
    stable_diffusion(folder / hub.WEIGHTS["sd15"].repo, 320 if full else 20)
    for name, model in CLIP_MODELS.items():
        clip(folder / hub.WEIGHTS[name].repo, config := clip_config(model, full))
        if not full:
            (folder / "open_clip").mkdir(exist_ok=True)
            (folder / "open_clip" / f"{model}.json").write_text(json.dumps(config))
    sam(folder / hub.WEIGHTS["sam-base"].repo, *((768, 12, 256) if full else (64, 12, 32)))
    if not full:
        sam(folder / hub.WEIGHTS["sam-huge"].repo, 64, 32, 32)
    return folder


def expect(folder: Path) -> dict[str, hub.Weights]:
    """The table with the sizes of the files in ``folder``."""
    return {
        name: replace(w, files={f: (folder / w.repo / f).stat().st_size if size else 0 for f, size in w.files.items()})
        for name, w in hub.WEIGHTS.items()
        if (folder / w.repo).is_dir()
    }


if __name__ == "__main__":
    served = Path(sys.argv[1])
    if (served / "open_clip").is_dir():
        import open_clip

        open_clip.add_model_config(served / "open_clip")
        hub.WEIGHTS.update(expect(served))
    from refdiff_lite.cli import app

    app(sys.argv[2:])
