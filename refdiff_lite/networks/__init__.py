"""The networks that Ref-Diff reads: which, where they come from, and everything about other people's libraries."""

from typing import TYPE_CHECKING, Any

from .presets import PRESETS, check_preset

if TYPE_CHECKING:
    from .loading import Networks, check_networks, device_and_dtype, from_networks, load

__all__ = ["PRESETS", "Networks", "check_networks", "check_preset", "device_and_dtype", "from_networks", "load"]


def __getattr__(name: str) -> Any:
    """Import torch and the networks' libraries only when one of these is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'refdiff_lite.networks' has no attribute {name!r}")
    from . import loading

    return getattr(loading, name)
