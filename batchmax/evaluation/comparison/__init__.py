"""What changed between two inputs of the same rows: pairing, metrics of pairs, statistical tests.

Decisions
---------
Keys are merged where both inputs have them in one order
    The key columns alone are read first. Only keys in different orders keep rows in memory, and how much is known
    before. Keys that are numbers are sorted. Rejected: hash tables (ten times the memory), and hashes in place of keys
    (two keys may have one hash).
"""
