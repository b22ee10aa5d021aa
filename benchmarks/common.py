"""Networks of SD 1.5's, CLIP's and SAM's size with random weights, and what counts their memory and compute.

On the device "meta" tensors have a shape and no values: a pass of the whole UNet takes seconds and no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def make_unet(device: str = "meta", dtype: torch.dtype = torch.float32) -> Any:
    """SD 1.5's UNet: 860 M parameters, 16 cross-attention layers of 8 heads."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    return _fill(unet, device, dtype)


def make_vae(device: str = "meta", dtype: torch.dtype = torch.float32) -> Any:
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[128, 256, 512, 512],
            layers_per_block=2,
            latent_channels=4,
        )
    return _fill(vae, device, dtype)


def make_text_encoder(device: str = "meta", dtype: torch.dtype = torch.float32) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    with torch.device("meta"):
        encoder = CLIPTextModel(config)
    return _fill(encoder, device, dtype)


def make_clip(device: str = "meta", dtype: torch.dtype = torch.float32) -> Any:
    """CLIP ViT-B/16: 150 M parameters."""
    import open_clip

    config = open_clip.get_model_config("ViT-B-16")
    with torch.device("meta"):
        clip = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=True)
    return _fill(clip, device, dtype)


def make_sam(huge: bool = False, device: str = "meta", dtype: torch.dtype = torch.float32) -> Any:
    from transformers import SamConfig, SamModel

    large = dict(hidden_size=1280, num_hidden_layers=32, num_attention_heads=16, global_attn_indexes=[7, 15, 23, 31])
    with torch.device("meta"):
        sam = SamModel(SamConfig(vision_config=large | {"mlp_dim": 5120} if huge else {}))
    return _fill(sam, device, dtype)


def _fill(net: Any, device: str, dtype: torch.dtype) -> Any:
    """The network with random weights; of its buffers only positions matter to what is measured."""
    net = torch.nn.Module.to(net, dtype)
    if device != "meta":
        net = net.to_empty(device=device)
        for p in [*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())]:
            p.data.uniform_(-0.02, 0.02)
        for positions in (b for b in net.buffers() if not b.is_floating_point()):
            positions.copy_(torch.arange(positions.numel()).reshape(positions.shape))
    return net.eval().requires_grad_(False)


def size_of(net: Any) -> int:
    """Bytes of a network's weights."""
    return sum(p.numel() * p.element_size() for p in net.parameters())


class PeakMemory(TorchDispatchMode):
    """Bytes of the tensors that are made within the block, at their highest; exact, and on "meta" without computing."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **kwargs or {})
        self._live = {key: (ref, size) for key, (ref, size) in self._live.items() if not ref.expired()}
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                if storage._cdata not in self._live and storage._cdata not in known:
                    self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return out


class FusedAttention(TorchFunctionMode):
    """Attention leaves only its output in memory, as a GPU's fused kernel does; without it "meta" takes it apart."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, _, value = args[:3] if len(args) > 2 else [(kwargs or {})[n] for n in ("query", "key", "value")]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **kwargs or {})


def peak_memory(run: Callable[[], Any]) -> int:
    """Bytes that a computation on "meta" would hold at its highest, beside its inputs and weights."""
    with FusedAttention(), PeakMemory() as memory, torch.no_grad():
        run()
    return memory.peak


def flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions of a computation on "meta"."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def all_heads(unet: Any, height: int) -> int:
    """Bytes of all heads' fp16 probabilities of all layers of one call, as capture that keeps everything holds them."""
    from refdiff_lite.networks.compat import cross_attention_modules, self_attention_modules

    factors = {"down_blocks.0": 1, "up_blocks.3": 1, "down_blocks.1": 2, "up_blocks.2": 2, "down_blocks.2": 4}
    factors |= {"up_blocks.1": 4, "mid_block": 8}
    total = 0
    for modules, own in ((cross_attention_modules(unet), False), (self_attention_modules(unet), True)):
        for name, module in modules.items():
            factor = next(f for block, f in factors.items() if name.startswith(block))
            queries = (height // factor) ** 2
            total += 2 * module.heads * queries * (queries if own else 77)
    return total
