"""Every page of a column chunk, looked at without decoding it: its place, its size and its checksum.

Unlike a copy (``copies``), this asks nothing of how a chunk is encoded, and has a window of it in memory, never all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from batchmax.parquet.copies import MAGIC_BYTES
from batchmax.parquet.encoded import FILE_PATH, METADATA, N_VALUES, place_of
from batchmax.parquet.footer import TAIL, Footer, FooterError
from batchmax.parquet.packed import DATA_PAGE, DATA_PAGE_V2, NotAMatrix, PackedPages, Window, inner_header, number
from batchmax.parquet.pages import WINDOW
from batchmax.parquet.thrift import ThriftError

COUNTED = {DATA_PAGE: 5, DATA_PAGE_V2: 8}
"""The field of a page header that says how many values a page has, by the type of the page."""


class DamagedPage(ValueError):  # noqa: N818 - says what was found
    """A page that is not what its header or the footer says."""


@dataclass(frozen=True)
class PageCount:
    """How many pages a column chunk has, and how many of them have no checksum."""

    pages: int
    unchecked: int


def check_pages(descriptor: int, footer: Footer, group: int, leaf: int) -> PageCount:
    """Walk the pages of a column chunk, and compare each with its checksum.

    Raises
    ------
    DamagedPage
        A page is not what its header or the footer says.
    OSError
        The file cannot be read.
    """
    at = 0
    try:
        entry = footer.row_group(group).chunk(leaf)
        if FILE_PATH in entry or METADATA not in entry:
            raise DamagedPage("the column lies in another file, or is encrypted")
        metadata = entry[METADATA].value
        start, size = place_of(metadata)
        if start < MAGIC_BYTES or size < 0 or start + size > os.fstat(descriptor).st_size - TAIL:
            raise DamagedPage("the column reaches beyond the file")
        pages = unchecked = values = 0
        at = start
        for page in PackedPages(Window(descriptor, start, start + size, WINDOW)):
            at = page.at
            page.check()
            pages += 1
            unchecked += 4 not in page.header
            kind = page.header[1].value
            if kind in COUNTED:
                values += number(inner_header(page.header, COUNTED[kind]), 1)
            at += page.n_bytes
        if values != metadata[N_VALUES].value:
            raise DamagedPage("the pages hold another number of values than the footer says")
    except NotAMatrix as error:
        raise DamagedPage(f"{error} (byte {at:,})") from error
    except (FooterError, ThriftError) as error:
        raise DamagedPage(f"the footer, or a page header, is damaged: {error}") from error
    return PageCount(pages, unchecked)
