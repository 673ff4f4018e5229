"""Writes and reads HTML reports."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pyarrow as pa

import batchmax
from tests.support.paths import ROOT
from tests.support.requirements import package

DIGITS = ROOT / "data" / "digits.parquet"

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=http://example.invalid/x onerror=alert(1)>',
    "</svg></title></style><iframe src=//example.invalid></iframe>",
    "\u202egnp.exe\u2066",
    r"$\frac{1}{0}$ {{ 7 * 7 }} {% raw %}",
    "a\nb\x1b[2J\x00\x7f",
    "日本語 عربى 😀 ﷽",
    "&lt;b&gt; &amp;",
]
ELEMENTS = set(
    re.findall(
        r"\w+",
        "html head meta title style body main header h1 h2 h3 p ul li dl dt dd div section figure figcaption svg path "
        "g rect text tspan details summary table thead tbody tr th td bdi pre code",
    )
)
"""The elements that a page may have. None of them loads, runs or sends anything."""


def table_of(**columns):
    """Return a table of these columns."""
    return pa.table(columns)


def write_report(src, tmp_path, name="page.html", **given):
    """Write a report and return its text and path."""
    out = tmp_path / name
    batchmax.report(src, str(out), if_exists="overwrite", **given)
    return out.read_text("utf-8"), out


class Tables(HTMLParser):
    """The tables of a page, by the id of the figure or section that contains them."""

    def __init__(self, text):
        super().__init__()
        self.tables = {}
        self.within = []
        self.cell = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        name = dict(attrs).get("id")
        if tag in {"figure", "section"}:
            self.within.append(name)
        elif tag == "table":
            self.tables[self.within[-1]] = self.rows = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.cell = ""

    def handle_endtag(self, tag):
        if tag in {"figure", "section"}:
            self.within.pop()
        elif tag in {"td", "th"}:
            self.rows[-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data


def parsed_number(cell):
    """Parse a number as a page shows it."""
    if cell in {"–", ""}:
        return math.nan
    text = cell.replace("−", "-").replace(",", "").replace("∞", "inf").removeprefix("> ").removeprefix("< ")
    return float(text.removesuffix(" %")) / (100 if text.endswith(" %") else 1)


def parsed_column(rows, at):
    return [parsed_number(row[at]) for row in rows[1:]]


def softmax(z):
    special = package("scipy.special")
    return special.softmax(z, axis=-1)
