"""Compiles, caches and starts kernels, and gives them instructions that Numba lacks. Doesn't know any kernel."""
