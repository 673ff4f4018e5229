"""System calls that Linux and macOS don't share, each as one function with the same guarantees on both systems.

The rest of the package uses POSIX calls that both systems have. A function here uses the best call that is present when
it runs, and otherwise does the same work with calls that every system has.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Error numbers of a call that the file system doesn't implement."""

MAX_READ = (1 << 31) - 1
"""Bytes that one call may read: macOS refuses to read more, and Linux reads only this much."""

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Arguments of Linux's ``renameat2``."""
RENAME_SWAP = 2
"""The flag of macOS's ``renamex_np``."""
KEEP_SIZE_PUNCH_HOLE = 1 | 2
"""The mode of Linux's ``fallocate``."""
PUNCH_HOLE = 99
"""macOS's ``F_PUNCHHOLE``, which Python has no name for."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BOOT_SESSION = b"kern.bootsessionuuid"
"""Where Linux and macOS identify the current boot."""


def sync(descriptor: int) -> None:
    """Write a file and its metadata, or the names in a folder, to permanent storage.

    On macOS ``fsync`` leaves data in the cache of the drive, and only ``F_FULLFSYNC`` also writes that. File systems
    that don't implement ``F_FULLFSYNC``, mostly network shares, get ``fsync``.
    """
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        try:
            fcntl.fcntl(descriptor, full_sync)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        else:
            return
    os.fsync(descriptor)


def sync_data(descriptor: int) -> None:
    """Write a file to permanent storage, but not metadata that reading it doesn't need, such as its times."""
    if hasattr(os, "fdatasync") and not hasattr(fcntl, "F_FULLFSYNC"):
        os.fdatasync(descriptor)
    else:
        sync(descriptor)


def set_direct(descriptor: int, *, direct: bool) -> bool:
    """Turn writing past the page cache (``O_DIRECT``) on or off; return whether it is on."""
    flag: int = getattr(os, "O_DIRECT", 0)
    if flag:
        with contextlib.suppress(OSError):
            others = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~flag
            fcntl.fcntl(descriptor, fcntl.F_SETFL, others | (flag if direct else 0))
            return direct
    return False


def read_into(descriptor: int, buffers: Sequence[memoryview], at: int) -> int:
    """Read from a position into buffers, one after the other; return how many bytes were read.

    There can be fewer than the buffers hold; 0 bytes are the end of the file.
    """
    if sum(map(len, buffers)) > MAX_READ:
        buffers = [next(buffer for buffer in buffers if len(buffer))[:MAX_READ]]
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, buffers, at)
    done = 0
    for buffer in buffers:
        data = os.pread(descriptor, len(buffer), at + done)
        buffer[: len(data)] = data
        done += len(data)
        if len(data) < len(buffer):
            break
    return done


def read_at(descriptor: int, size: int, at: int) -> bytes:
    """Return bytes from a position; fewer only where the file ends."""
    pieces: list[bytes] = []
    while size and (data := os.pread(descriptor, min(size, MAX_READ), at)):
        pieces.append(data)
        size -= len(data)
        at += len(data)
    return b"".join(pieces)


def punch_hole(descriptor: int, start: int, size: int) -> None:
    """Free the disk space of a range of a file, which then reads as zeros; do nothing if that isn't possible."""
    fallocate = _library_function("fallocate")
    if fallocate is not None:
        fallocate(descriptor, KEEP_SIZE_PUNCH_HOLE, ctypes.c_longlong(start), ctypes.c_longlong(size))
        return
    with contextlib.suppress(OSError):
        # macOS takes whole blocks only.
        block = os.fstat(descriptor).st_blksize
        first, end = -(-start // block) * block, (start + size) // block * block
        if first < end:
            fcntl.fcntl(descriptor, PUNCH_HOLE, struct.pack("=IIqq", 0, 0, first, end - first))


def exchange(one: Path, other: Path) -> bool:
    """Exchange two files or folders atomically; return False where the system or the file system can't.

    Raises
    ------
    OSError
        The system can, but not these two.
    """
    names = os.fsencode(one), os.fsencode(other)
    if (rename := _library_function("renameat2")) is not None:
        failed = rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    elif (rename := _library_function("renamex_np")) is not None:
        failed = rename(*names, RENAME_SWAP)
    else:
        return False
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED or code == errno.EPERM:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def boot_id() -> str | None:
    """Return an identifier of the current boot of the machine; None where the system has none."""
    with contextlib.suppress(OSError):
        return BOOT_ID.read_text(encoding="ascii").strip()
    sysctl = _library_function("sysctlbyname")
    text, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    if sysctl is None or sysctl(BOOT_SESSION, text, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return None
    return text.value.decode("ascii", "replace") or None


def _library_function(name: str) -> Any:
    """Return a function of the C library; None if it doesn't have this function."""
    try:
        return getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
