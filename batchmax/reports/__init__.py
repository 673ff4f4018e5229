"""Reports about a model: what a page shows, collected from the rows."""
