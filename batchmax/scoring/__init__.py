"""From chunks of logits to columns of results, statuses and totals. Knows neither files nor commands."""
