"""Matrices in Parquet without walking levels: a small library that knows nothing of the rest of the package.

A list column whose rows all have K numbers and no nulls is a matrix, and its repetition and definition levels say
nothing. General readers handle them one by one all the same. Here they are compared with what they must be.
"""

from __future__ import annotations

from batchmax.parquet.pages import NotAMatrix
from batchmax.parquet.reader import MatrixReader

__all__ = ["MatrixReader", "NotAMatrix"]
