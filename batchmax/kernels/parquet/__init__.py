"""Kernels that decode and check parts of Parquet files: levels, Snappy, Thrift structs."""
