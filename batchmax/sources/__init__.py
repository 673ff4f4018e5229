"""Where rows come from: Parquet files and Arrow streams, read in chunks within a memory limit."""
