"""The process: cores, buffers, signals, lazy imports and progress callbacks. Doesn't know data.

Decisions
---------
Memory is reused
    Large blocks come from Arrow's pool or from :class:`~batchmax.runtime.buffers.Buffers`: the first use of a new page
    takes longer than the arithmetic on it. In the command line's process, the pool keeps freed memory for a second.
Idle threads sleep in the command line's process
    OpenMP's threads spin by default, on a core that could read or write.
"""
