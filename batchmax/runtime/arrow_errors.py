"""Which exceptions of pyarrow mean that the data it read are damaged, rather than the disk or the program at fault."""

from __future__ import annotations

import pyarrow as pa

PARSING = (
    OSError,  # with an error number it comes from the operating system, without one from a parser or a codec
    UnicodeDecodeError,  # names and texts are decoded when they are asked for
    pa.ArrowInvalid,
    pa.ArrowNotImplementedError,
    pa.lib.ArrowCapacityError,
    pa.lib.ArrowIndexError,
    pa.lib.ArrowSerializationError,
)
"""ArrowTypeError and ArrowKeyError are not here: they are about the arguments of a call."""


def is_damage(error: BaseException | None) -> bool:
    """Return whether pyarrow raised this because of the bytes that it read."""
    return isinstance(error, PARSING) and getattr(error, "errno", None) is None
