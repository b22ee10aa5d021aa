"""The command line, a module for each kind of command. Wrong input costs one line and exit code 2."""

from . import segment, evaluate, trace, check, live, networks  # noqa: F401, I001 (in the order of --help)
from .options import app

__all__ = ["app"]
