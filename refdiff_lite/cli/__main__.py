"""``python -m refdiff_lite.cli``."""

from . import app

app()
