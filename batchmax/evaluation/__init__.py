"""Metrics of models: evaluation, calibration, comparison, worst rows. Knows neither pages nor terminals.

Decisions
---------
The best temperature is a root
    d loss / d log β of a row is its loss minus its entropy, so the root of that mean, within fixed bounds, takes a few
    passes. Rejected: a minimizer of the loss, which takes more passes for fewer digits.
"""
