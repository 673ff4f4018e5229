"""Softmax, other activations and losses of NumPy arrays: the public functions that read no files."""
