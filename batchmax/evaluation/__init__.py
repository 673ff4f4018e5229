"""Metrics of models: evaluation, calibration, comparison, worst rows. Knows neither pages nor terminals."""
