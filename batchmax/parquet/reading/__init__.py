"""Readers of column chunks: pages, decompression, lists of numbers, decoded sizes, checks."""
