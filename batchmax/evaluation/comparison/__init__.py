"""What changed between two inputs of the same rows: pairing, metrics of pairs, statistical tests."""
