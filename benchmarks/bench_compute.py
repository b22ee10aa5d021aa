"""Compute, counted on networks of real size without running them: ours over the official code's order of work.

Floating-point operations of matrix products and convolutions, at equal resolution, so the ratios hold on any machine.
"""

import torch
from common import flops, make_clip, make_unet, make_vae

from refdiff_lite.attention import record_attention
from refdiff_lite.config import RefDiffConfig
from refdiff_lite.networks import PRESETS
from refdiff_lite.networks.clip import encode_images, encode_masks
from refdiff_lite.networks.compat import ddim
from refdiff_lite.unet_pass import unet_pass

SIDE, MASKS, KEPT, SENTENCES = 512, 64, 10, 8
LAYERS = PRESETS["sd15"].layers


def blank(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


def scheduler():
    from diffusers import DDIMScheduler

    return ddim(DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1))


def main() -> None:
    unet, vae, clip, half = make_unet(), make_vae(), make_clip(), blank(3)
    x, t = blank(1, 4, SIDE // 8, SIDE // 8), 101

    def captured() -> None:
        with (
            record_attention(unet, r"(blocks\.[12]|mid)"),
            record_attention(unet, r"(down_blocks\.2|up_blocks\.1)", "self"),
        ):
            unet(x, t, blank(1, 77, 768))

    def ours(sentences: int) -> None:
        unet_pass(
            unet, scheduler(), [x], [t], blank(sentences, 77, 768), None, {"cross": LAYERS}, RefDiffConfig.paper()
        )

    def official() -> None:
        for step in (51, 1):
            unet(x.expand(2, -1, -1, -1), step, blank(2, 77, 768))

    def encode() -> None:
        vae.encode(blank(1, 3, SIDE, SIDE))

    def features(count: int) -> None:
        pixels, masks = torch.zeros(3, SIDE, SIDE), torch.ones(count, SIDE, SIDE, dtype=torch.bool)
        encode_images(clip, [torch.zeros(3, 224, 224)] * count, half, half)
        encode_masks(clip, pixels, masks, (224, 224), half, half)

    plain = flops(lambda: unet(x, t, blank(1, 77, 768)))
    theirs = flops(official)
    shared, clip_all, clip_kept = (
        flops(encode),
        MASKS * flops(lambda: features(1)),
        flops(lambda: features(KEPT)),
    )
    many = shared + clip_kept + flops(lambda: ours(SENTENCES))
    again = SENTENCES * (shared + clip_all + theirs)
    rows = [
        (
            "UNet pass with cross-attention up to 32×32 and self-attention at 16×16, over a plain pass",
            flops(captured) / plain,
        ),
        ("generative score of one sentence: official order of work over ours", theirs / flops(lambda: ours(1))),
        (f"{SENTENCES} sentences, {MASKS} masks, {KEPT} kept: all anew for each over ours", again / many),
        (f"CLIP features: {MASKS} masks one at a time over ours, the {KEPT} kept in batches", clip_all / clip_kept),
        (
            f"CLIP features of the same {MASKS} masks: one at a time over ours",
            clip_all / flops(lambda: features(MASKS)),
        ),
    ]
    print(f"| compute at {SIDE} px | ratio |\n|---|---|")
    for what, ratio in rows:
        print(f"| {what} | {ratio:.3f} |" if ratio < 2 else f"| {what} | {ratio:.1f} |")
    print(f"\nA plain pass of the UNet: {plain / 1e12:.2f} TFLOP; encoding the image: {shared / 1e12:.2f} TFLOP.")


if __name__ == "__main__":
    main()
