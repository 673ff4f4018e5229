"""Random changes of bytes, and the values that damaged fields get."""

from __future__ import annotations

import random

NUMBERS = [
    0,
    1,
    2,
    3,
    -1,
    -2,
    5,
    40,
    127,
    255,
    1 << 15,
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    1 << 40,
    1 << 60,
    (1 << 63) - 1,
]
BYTES = [0, 1, 2, 3, 0x7F, 0x80, 0xFF]
TEXTS = [b"", b"\xff\xfe", b"\x1b[2J", b"logits", b"label", b"x" * 5000]


def change_bytes(data: bytes, choose: random.Random, most: int) -> bytes:
    """Return ``data`` with some of the first ``most`` bytes changed."""
    changed = bytearray(data)
    for _ in range(choose.choice([1, 1, 2, 8])):
        if changed and most:
            at = choose.randrange(min(len(changed), most))
            changed[at] = choose.choice([*BYTES, changed[at] ^ (1 << choose.randrange(8)), (changed[at] + 1) % 256])
    return bytes(changed)


def change_words(data: bytes, choose: random.Random) -> bytes:
    """Return bytes in which some integers of 1, 2, 4 or 8 bytes are changed."""
    changed = bytearray(data)
    for _ in range(choose.choice([1, 1, 2])):
        width = choose.choice([1, 2, 4, 4, 8, 8])
        if len(changed) < width:
            break
        at = width * choose.randrange(len(changed) // width)
        old = int.from_bytes(changed[at : at + width], "little")
        new = choose.choice([*NUMBERS, old + 1, old - 1, old ^ (1 << choose.randrange(8 * width))])
        changed[at : at + width] = (new % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(changed)
