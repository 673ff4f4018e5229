"""Which exceptions of pyarrow mean damaged data, as opposed to a failing disk or a bug."""

from __future__ import annotations

import pyarrow as pa

PARSING = (
    OSError,  # with an error number, it comes from the operating system; without one, from a parser or a codec
    UnicodeDecodeError,  # names and strings are decoded on access
    pa.ArrowInvalid,
    pa.ArrowNotImplementedError,
    pa.lib.ArrowCapacityError,
    pa.lib.ArrowIndexError,
    pa.lib.ArrowSerializationError,
)
"""ArrowTypeError and ArrowKeyError aren't included: they are about the arguments of a call."""


def is_damage(error: BaseException | None) -> bool:
    """Return whether pyarrow raised an exception because the bytes that it read are damaged."""
    return isinstance(error, PARSING) and getattr(error, "errno", None) is None
