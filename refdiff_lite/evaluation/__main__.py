"""``python -m refdiff_lite.evaluation`` is ``refdiff-lite evaluate``, for ``accelerate launch`` and ``torchrun``."""

import sys

from ..cli import app

app(["evaluate", *sys.argv[1:]], prog_name="python -m refdiff_lite.evaluation")
