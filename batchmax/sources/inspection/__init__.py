"""What ``inspect`` and shell completion show about input files. Reads footers and a few rows, and computes nothing."""
