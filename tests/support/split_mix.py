"""The random number generator SplitMix64, in Python integers."""

from __future__ import annotations


def split_mix(seed: int, n: int) -> int:
    """Return output n, from 0, of SplitMix64 (Steele, Lea and Flood 2014)."""
    x = (seed + (n + 1) * 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)
