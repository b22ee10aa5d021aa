"""Explorers for notebooks: what the networks looked at, in a picture that answers at once.

Each explorer is three things: pure functions that make its data (tested without a browser), a thin view in plain
JavaScript (``static/``), and a still picture. ``save_html`` writes one file that needs no kernel and no network.
"""

from .attention import AttentionExplorer
from .comparison import AttentionComparison
from .gallery import Gallery
from .inversion import InversionExplorer
from .playground import SegmentationPlayground
from .text import TextExplorer

__all__ = [
    "AttentionComparison",
    "AttentionExplorer",
    "Gallery",
    "InversionExplorer",
    "SegmentationPlayground",
    "TextExplorer",
]
