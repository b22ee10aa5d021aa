"""The networks that Ref-Diff reads: which, where they come from, and everything about other people's libraries."""

from .presets import PRESETS, Networks, check_preset, default_config, device_and_dtype, from_networks, load

__all__ = ["PRESETS", "Networks", "check_preset", "default_config", "device_and_dtype", "from_networks", "load"]
