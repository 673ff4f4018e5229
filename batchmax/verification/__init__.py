"""Checks of scored files: structure, row invariants, and samples of rows recomputed in exact arithmetic.

Decisions
---------
No arithmetic is shared with scoring
    What follows from the numbers in a file is an interval (a probability is within 3 ULP, so its logarithm is between
    two numbers), and rows are recomputed in ``decimal``. Rejected: scoring again and comparing bytes, which repeats the
    errors of a kernel, and one tolerance for all rows.
"""
