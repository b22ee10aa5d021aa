"""Ref-Diff (arXiv 2308.16777) to learn from and to debug: which pixels does a phrase mean to Stable Diffusion?"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import RefDiffConfig
    from .pipeline import RefDiff
    from .result import Result
    from .scene import Scene

__all__ = ["RefDiff", "RefDiffConfig", "Result", "Scene"]
__version__ = "0.2.0.dev0"


def __getattr__(name: str) -> Any:
    """Import torch and the networks' libraries when they are first asked for, so that ``--help`` need not wait."""
    if name not in __all__:
        raise AttributeError(f"module 'refdiff_lite' has no attribute {name!r}")
    from . import config, pipeline, result

    return next(getattr(m, name) for m in (config, result, pipeline) if hasattr(m, name))
