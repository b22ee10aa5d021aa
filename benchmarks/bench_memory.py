"""Memory, counted on networks of real size without running them: what capture adds, and what each preset needs.

Every tensor that lives is counted, with attention fused as on a GPU. A GPU's own context and the allocator's slack,
about 1 GB, come on top.
"""

import torch
from common import (
    all_heads,
    make_clip,
    make_sam,
    make_text_encoder,
    make_unet,
    make_vae,
    peak_memory,
    size_of,
)

from refdiff_lite.attention import record_attention, run_for_attention
from refdiff_lite.networks import PRESETS
from refdiff_lite.networks.clip import IMAGES, encode_images, encode_masks
from refdiff_lite.scene import SENTENCES

MB, GB = 2**20, 2**30
HALF = torch.float16


def blank(*shape: int, dtype: torch.dtype = HALF) -> torch.Tensor:
    return torch.empty(*shape, device="meta", dtype=dtype)


def capture(side: int) -> None:
    unet = make_unet(dtype=HALF)
    x, text = blank(1, 4, side // 8, side // 8), blank(1, 77, 768)

    def captured() -> None:
        with (
            record_attention(unet, r"(blocks\.[12]|mid)"),
            record_attention(unet, r"(down_blocks\.2|up_blocks\.1)", "self"),
        ):
            unet(x, 1, text)

    plain, ours = peak_memory(lambda: unet(x, 1, text)), peak_memory(captured)
    everything = all_heads(unet, side // 8)
    print(f"| UNet pass at {side} px: capture over plain, peak memory | {ours / plain:.3f} |")
    print(
        f"| the same: memory of every head of every layer, kept, over ours (extra) | {everything / max(1, ours - plain):.0f} |"
    )


def sam_masks(points: int) -> None:
    """As transformers enlarges them: three a point, to SAM's own size and to the image's."""
    masks = torch.nn.functional.interpolate(
        blank(points, 3, 256, 256, dtype=torch.float32), (1024, 1024), mode="bilinear"
    )
    masks = torch.nn.functional.interpolate(masks[..., :768, :], (768, 1024), mode="bilinear")
    masks.gt(0)


def needs(side: int) -> dict[str, tuple[int, int]]:
    """Weights and peak of activations of each network, fp16, in bytes."""
    unet, vae, text, clip = (make(dtype=HALF) for make in (make_unet, make_vae, make_text_encoder, make_clip))
    layers, half = PRESETS["sd15"].layers, blank(3, dtype=torch.float32)

    def sentences() -> None:
        with record_attention(unet, layers):
            run_for_attention(unet, blank(SENTENCES, 4, side // 8, side // 8), 1, blank(SENTENCES, 77, 768))

    def features() -> None:
        encode_images(clip, [torch.zeros(3, 224, 224)] * IMAGES, half, half)
        masks = torch.ones(IMAGES, 64, 64, dtype=torch.bool)
        encode_masks(clip, torch.zeros(3, 64, 64), masks, (side // 16 * 16,) * 2, half, half)

    found = {
        f"UNet, {SENTENCES} sentences": (size_of(unet), peak_memory(sentences)),
        "VAE": (size_of(vae), peak_memory(lambda: vae.encode(blank(1, 3, side, side)))),
        "text encoder": (size_of(text), 0),
        f"CLIP, {IMAGES} masks": (size_of(clip), peak_memory(features)),
    }
    for points in (64, 16):
        found[f"SAM's masks of {points} points"] = 0, peak_memory(lambda n=points: sam_masks(n))
    for name, huge in (("SAM base", False), ("SAM huge", True)):
        sam = make_sam(huge, dtype=HALF)
        found[name] = size_of(sam), peak_memory(lambda sam=sam: sam.get_image_embeddings(blank(1, 3, 1024, 1024)))
    return found


def totals(found: dict[str, tuple[int, int]], sam: str) -> tuple[int, int]:
    """Bytes with all networks on the device, and with one at a time and SAM's points in smaller batches."""
    parts = {n: v for n, v in found.items() if not n.startswith("SAM ") or n == sam}
    whole = sum(w for w, _ in parts.values()) + max(a for _, a in parts.values())
    batch = parts.pop("SAM's masks of 16 points")[1] + parts[sam][0]
    del parts["SAM's masks of 64 points"]
    return whole, max(batch, *(w + a for w, a in parts.values()))


def main() -> None:
    print("| what | ratio |\n|---|---|")
    capture(512)
    for side in (512, 1024):
        found = needs(side)
        print(f"\n| fp16, {side} px | weights, MB | activations, MB |\n|---|---|---|")
        for name, (weights, peak) in found.items():
            print(f"| {name} | {weights / MB:.0f} | {peak / MB:.0f} |")
        for sam in ("SAM base", "SAM huge"):
            whole, low = totals(found, sam)
            print(f"| all at once, {sam}: {whole / GB:.2f} GB; low-memory mode: {low / GB:.2f} GB | | |")


if __name__ == "__main__":
    main()
