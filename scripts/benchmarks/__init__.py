"""What ``scripts/bench.py`` is made of: the peers, the processes, the kernels, and what is made of the figures."""
