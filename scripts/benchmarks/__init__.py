"""Modules of ``scripts/bench.py``: peers, measurement of processes and kernels, results, tables and plots."""
