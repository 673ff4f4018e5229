"""Names the options of the second input of a comparison in texts about it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator

from batchmax.errors import BatchmaxError

WITH_FORM_FOR_B = ("logits", "input", "label")
"""The options that have a form for b alone, such as ``--logits-b``."""

OPTIONS_OF_B = re.compile(rf"--({'|'.join(WITH_FORM_FOR_B)})(?![\w-])")


@contextlib.contextmanager
def named_for_b(shared: Collection[str]) -> Iterator[None]:
    """Rename options in errors about b to their ``-b`` forms; ``shared`` are the options that were given for both."""
    try:
        yield
    except BatchmaxError as error:
        error.where, error.what = for_b(error.where, shared), for_b(error.what, shared)
        error.remedy = for_b(error.remedy)
        raise


def for_b(text: str, shared: Collection[str] = ()) -> str:
    """Return a text about b with options, except the shared ones, renamed to their ``-b`` forms."""
    return OPTIONS_OF_B.sub(lambda match: match[0] if match[1] in shared else f"{match[0]}-b", text)
