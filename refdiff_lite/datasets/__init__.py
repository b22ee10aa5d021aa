"""Referring-expression data sets as one kind of record."""

from .records import Record, Sample

__all__ = ["Record", "Sample"]
