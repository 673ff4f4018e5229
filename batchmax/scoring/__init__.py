"""Scores chunks of logits: result columns, statuses and totals. Knows neither files nor commands."""
