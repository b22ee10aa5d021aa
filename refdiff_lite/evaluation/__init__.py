"""Lesson 8: variants and baselines over a data set, with intervals, tables and a report."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import evaluate, evaluate_scene, summarise, table

__all__ = ["evaluate", "evaluate_scene", "summarise", "table"]


def __getattr__(name: str) -> Any:
    """Import torch and the networks' libraries only when one of these is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'refdiff_lite.evaluation' has no attribute {name!r}")
    from . import run

    return getattr(run, name)
