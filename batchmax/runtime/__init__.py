"""The process: threads, memory, signals, lazy imports, progress callbacks. Knows nothing of data."""
