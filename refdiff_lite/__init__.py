"""Ref-Diff (arXiv 2308.16777) to learn from and to debug: which pixels does a phrase mean to Stable Diffusion?"""

from .config import RefDiffConfig
from .pipeline import RefDiff, Result, Scene

__all__ = ["RefDiff", "RefDiffConfig", "Result", "Scene"]
__version__ = "0.1.0"
