"""Sources that are not Parquet files: Arrow IPC streams, and tables and readers in memory."""
