"""Writers of Parquet files: pages of lists, encoded or copied column chunks, direct I/O."""
