"""Paths, files, folders and object stores. Doesn't know rows.

Decisions
---------
Paths are compared by device and inode
    macOS ignores case and how accents are encoded. Where names decide (the order of inputs, globs, columns from
    folders), they are compared with composed accents (NFC), so that results are the same on every file system.
Objects are read through a sparse local file
    The byte ranges that are needed are fetched to their own places ahead of the reader and released after it, so the
    code that reads files reads objects. Rejected: a file-like object in Python, which every read holds the GIL for, and
    fetching whole objects first.
"""
