"""The common base class of results: dataclasses that are exported as JSON and shown as short tables.

Knows no command.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass
class CommandResult:
    """The result of a command."""

    SHOWN: ClassVar[tuple[str, ...]]
    """The attributes that the table shows; those that are None are left out."""

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary with the names of its JSON."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the result as one line of JSON."""
        return json.dumps(self.as_dict(), allow_nan=False, ensure_ascii=False)

    def __str__(self) -> str:
        """Return the table as text."""
        width = max(map(len, self.SHOWN))
        return "\n".join(f"{name:{width}}  {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in self._rows())
        return f"<table>{''.join(rows)}</table>"

    def _rows(self) -> Iterator[tuple[str, str]]:
        for name in self.SHOWN:
            value = getattr(self, name)
            if isinstance(value, float):
                yield name, f"{value:.6g}"
            elif value is not None:
                yield name, f"{value:,}" if isinstance(value, int) else str(value)
