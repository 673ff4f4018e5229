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
    Each has its own open file, so nothing but footers is shared. Threads that took whichever row group is next would
    read row groups of different sizes better, but with those that writers make, each thread is at most two chunks ahead
    in any case. Within a row group, pyarrow can't skip to a chunk without decoding what is before it.
"""
