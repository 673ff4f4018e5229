"""Source text of a function with which a process measures its own peak memory."""

from __future__ import annotations

PEAK = """
def peak():
    import re, resource
    try:
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    except FileNotFoundError:  # macOS, which counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""
"""Source of a function that returns the peak resident memory in bytes.

Linux uses ``VmHWM``: there, the ``ru_maxrss`` of a child process starts at its parent's value.
"""
