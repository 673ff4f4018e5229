"""Code for a process that measures its own memory."""

from __future__ import annotations

PEAK = """
def peak():
    import re, resource
    try:
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    except FileNotFoundError:  # macOS, which counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""
"""A function that returns the peak of resident memory in bytes.

Not ``ru_maxrss`` where there is another way: on Linux a child starts with that of its parent.
"""
