"""HTML reports about a model: collects from the rows what the page shows."""
