"""Checks of scored files: structure, row invariants, and samples of rows recomputed in exact arithmetic.

Uses none of the code that computed the values.
"""
