"""Sources of rows: Parquet files and Arrow streams, read in chunks within a memory limit.

Decisions
---------
Arrow data that does not come from a Parquet file is validated in full
    Offsets, indices and views may point outside of their memory, and Arrow follows them. What Arrow decodes before it
    can validate is checked in the IPC message: sizes against the memory limit, and nulls where Arrow ends the process.
A stream must end with the end-of-stream marker
    A producer that died would otherwise look like one that had no more rows.
No memory maps of inputs
    A file that is truncated while it is mapped is a signal, not an error.
A changed input is found by ``stat``
    Device, inode, size, modification time and change time are compared at the beginning, after each chunk and at the
    end. The identity of a job has size and modification time only, so that a copy is the same input.
Chunks are smaller than row groups
    A large row group is never in memory as a whole. The memory that a job takes follows from the footers, and a job
    that does not fit into ``--memory-limit`` is refused before it starts.
Several threads read whole row groups, each every nth one
    Each has its own open file, so only footers are shared. Which thread reads a row group doesn't depend on timing, so
    an error, a limit and the read statistics are those of one thread. Runs of one row group would need pyarrow to skip
    rows of the other columns, which takes about as long as decoding them.
"""
