"""Where results go: Parquet files, Arrow streams, text files. Knows no kernels."""
