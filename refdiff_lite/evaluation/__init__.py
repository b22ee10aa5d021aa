"""Lesson 8: variants and baselines over a data set, with intervals, tables and a report."""

from .run import evaluate, evaluate_scene
from .summary import summarise, table

__all__ = ["evaluate", "evaluate_scene", "summarise", "table"]
