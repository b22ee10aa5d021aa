"""A dry run at full size: the real classes, the real vocabulary, random weights, a photo, all four variants.

The masks mean nothing; that it runs, in how much time and memory, does. Runs on whatever device the library chooses.
"""

import argparse
import gzip
import json
import resource
import tempfile
import time
from pathlib import Path

import open_clip
from common import make_clip, make_text_encoder, make_unet, make_vae
from diffusers import PNDMScheduler, StableDiffusionPipeline
from skimage import data as photos
from transformers import CLIPTokenizerFast

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.config import PAPER_VARIANTS
from refdiff_lite.networks import device_and_dtype, from_networks

START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(folder: Path) -> CLIPTokenizerFast:
    """CLIP's own tokenizer, from the vocabulary inside open_clip's wheel."""
    table = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.decompress(table.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = [*letters, *(c + "</w>" for c in letters), *(m.replace(" ", "") for m in merges), START, END]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    names = dict(bos_token=START, eos_token=END, unk_token=END, pad_token=END, model_max_length=77)
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return CLIPTokenizerFast.from_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512)
    side = parser.parse_args().side
    device, dtype = (str(device_and_dtype()[0]), device_and_dtype()[1])
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = clip_tokenizer(Path(folder))
    theirs = open_clip.get_tokenizer("ViT-B-16")(["the cup of coffee on the left"])[0].tolist()
    ours = tokenizer("the cup of coffee on the left").input_ids
    assert ours == theirs[: len(ours)], "the tokenizer is not CLIP's"
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    parts = [make(device, dtype) for make in (make_vae, make_text_encoder, make_unet)]
    sd = StableDiffusionPipeline(
        parts[0], parts[1], tokenizer, parts[2], scheduler, None, None, requires_safety_checker=False
    )
    preprocess = open_clip.image_transform((224, 224), is_train=False)
    nets = from_networks(sd, make_clip(device, dtype), open_clip.get_tokenizer("ViT-B-16"), preprocess, side)
    print(f"networks: {time.perf_counter() - start:.0f} s")
    scene = RefDiff(nets, RefDiffConfig.paper()).set_image(photos.coffee())
    for variant in PAPER_VARIANTS:
        start = time.perf_counter()
        result = scene.segment("the cup of coffee on the left", variant)
        assert result.mask.shape == photos.coffee().shape[:2]
        print(f"{variant}: {len(result.proposals)} proposals, {time.perf_counter() - start:.0f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{device}, {side} px; most memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
