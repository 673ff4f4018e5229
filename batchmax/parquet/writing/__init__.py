"""Writers of Parquet files: pages of lists, column chunks made or copied, direct I/O."""
