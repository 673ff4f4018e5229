"""Tests the file of the HTML report: reproducible bytes, safe text, replacement and errors."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.support.browser import elements
from tests.support.report_pages import DIGITS, ELEMENTS, HOSTILE, Tables, table_of, write_report
from tests.support.requirements import package
from tests.support.rows import NAN, lists

LIMIT = 3 << 20


# Contents


def test_the_same_input_makes_the_same_bytes(digits, tmp_path):
    """The page has the same bytes for any number of threads, any path, and any matplotlib settings of the user."""
    mpl = package("matplotlib")
    text, *_ = digits
    with mpl.rc_context({"axes.grid": True, "font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        again, _ = write_report(DIGITS, tmp_path, "other.html", by="label", threads=1)
    assert again == text


@pytest.mark.parametrize("k", [1000, 32_000])
def test_report_size_is_bounded(k, tmp_path):
    """A page is below 3 MiB in the worst case.

    The case: many classes with long names, 100 rows, and 40 columns of long text that needs escaping.
    """
    n = 120
    rng = np.random.default_rng(k)
    z = rng.normal(size=(n, k)).astype(np.float32)
    texts = {f"<{'c' * 90}{at}>": ["\"&<>'" * 500] * n for at in range(40)}
    classes = tuple(f"{at}{'<&>' * 60}" for at in range(k))
    src = table_of(logits=lists(z), label=rng.integers(0, k, n), **texts)
    text, _ = write_report(src, tmp_path, worst=100, classes=classes, by=tuple(texts)[:2], memory_limit="2GiB")
    assert len(text.encode()) < LIMIT
    assert "more columns" in text


def test_text_of_the_data_adds_no_elements(tmp_path):
    """Hostile class names, column names, values and titles stay text; the page has only its own elements."""
    n = len(HOSTILE)
    columns = {HOSTILE[0]: HOSTILE, HOSTILE[1]: HOSTILE, HOSTILE[2]: [[text] for text in HOSTILE]}
    table = table_of(logits=lists(np.eye(n, dtype=np.float32)), label=[*range(1, n), 0], **columns)
    text, _ = write_report(table, tmp_path, classes=tuple(HOSTILE), by=HOSTILE[0], title=HOSTILE[2])
    found = elements(text)
    assert {tag for tag, _ in found} <= ELEMENTS
    for tag, attributes in found:
        assert not [name for name in attributes if name.startswith("on") or name in {"src", "href", "style", "action"}]
        if tag == "meta" and "http-equiv" in attributes:
            assert attributes["content"].startswith("default-src 'none'; style-src 'sha256-")
    assert HOSTILE[4] in {cell for row in Tables(text).tables["worst"] for cell in row}
    assert not re.search("[\u202e\u2066\x00\x1b\x7f]", text)


def test_charts_have_text_alternatives(digits):
    """Every chart is an image with a text alternative, and every mark in it has a title."""
    text, *_ = digits
    found = elements(text)
    charts = [attributes for tag, attributes in found if tag == "svg"]
    assert len(charts) == 8
    for attributes in charts:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"]) > 20
    marks = [attributes for tag, attributes in found if tag == "g" and attributes.get("class") == "mark"]
    titles = re.findall(r'<g class="mark"><title>([^<]+)</title>', text)
    assert len(titles) == len(marks) > 200
    assert any(re.fullmatch(r"six: mean loss 0\.2451, 91 rows\nprecision .+ %, recall .+ %", one) for one in titles)
    assert not re.search(r"#0000[0-9a-f]{2}", text), "a color of matplotlib that the style sheet doesn't set"


# The file


def test_existing_report_is_replaced_only_with_overwrite(tmp_path):
    """A page is replaced as a whole or not at all, and no other file is left."""
    out = tmp_path / "x.html"
    out.write_text("old")
    with pytest.raises(batchmax.OutputError, match="exists"):
        batchmax.report(DIGITS, str(out))
    table = table_of(logits=[[1.0, NAN]], label=[0])
    with pytest.raises(batchmax.BadRowError):
        batchmax.report(table, str(out), if_exists="overwrite")
    assert out.read_text() == "old"
    batchmax.report(DIGITS, str(out), if_exists="overwrite")
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["x.html"]


def test_report_written_by_another_process_is_not_replaced(tmp_path, monkeypatch):
    """A file that another process writes to the path after the first check isn't overwritten."""
    from batchmax.sinks import text_file

    out = tmp_path / "x.html"
    place = text_file.TextFile(str(out), (".html",), "error")
    monkeypatch.setattr(place, "_check", lambda: None)
    out.write_text("theirs")
    with pytest.raises(batchmax.OutputError, match="exists"):
        place.write("ours")
    assert out.read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["x.html"]


def test_failed_write_leaves_no_file(tmp_path, monkeypatch):
    """A full disk is a one-line error; the old page stays, and no other file is left."""
    from batchmax.sinks import text_file

    out = tmp_path / "x.html"
    out.write_text("old")
    place = text_file.TextFile(str(out), (".html",), "overwrite")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(text_file.os, "fsync", full)
    with pytest.raises(batchmax.OutputError, match="No space left"):
        place.write("new")
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.html"]


WRONG = {
    "another ending": ({"out": "x.parquet"}, r"must end in \.html"),
    "a row that is not there": ({"row": 899}, "out of range for 899 rows"),
    "a row after the limit": ({"row": 10, "limit": 10}, "out of range for 10 rows"),
    "a negative row": ({"row": -1}, "no row -1"),
    "too many worst rows": ({"worst": 101}, "0 to 100"),
    "no bins": ({"bins": 0}, "--bins"),
    "groups without labels": ({"label": "none", "by": "id"}, "--by"),
    "a group that is not there": ({"by": "nothing"}, "nothing"),
    "resume": ({"if_exists": "resume"}, "--if-exists"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_options_are_one_line_errors(name, tmp_path, monkeypatch):
    """An invalid option is a one-line error, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    given, message = WRONG[name]
    with pytest.raises(batchmax.BatchmaxError, match=message) as caught:
        batchmax.report(DIGITS, **({"out": "x.html"} | given))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_reader_is_refused_and_table_accepted(tmp_path):
    """A reader is refused because a report needs two passes; a table is accepted."""
    table = pq.read_table(DIGITS)
    with pytest.raises(batchmax.UsageError, match="two passes"):
        batchmax.report(table.to_reader(), str(tmp_path / "x.html"))
    assert batchmax.report(table, str(tmp_path / "x.html")).n_rows == 899


def test_storage_options_are_not_on_the_page(tmp_path):
    """The command on the page has the options of the report, but no storage options, which may be secrets."""
    batchmax.report(DIGITS, str(tmp_path / "x.html"), storage_options="key=s3cr3t", limit=50)
    page = (tmp_path / "x.html").read_text()
    assert "--limit 50" in page
    assert "s3cr3t" not in page


def test_missing_libraries_are_named(tmp_path, monkeypatch):
    """Without Jinja2 and matplotlib, the error names the extra that installs them."""
    from batchmax.reports import report

    monkeypatch.setattr(report, "find_spec", lambda _: None)
    with pytest.raises(batchmax.UsageError, match=re.escape("pip install '.[insight]'")):
        batchmax.report(DIGITS, str(tmp_path / "x.html"))


def test_template_is_in_the_package():
    """The template and the style sheet are in the package, so that the wheel contains them."""
    from batchmax.reports.html import page as report_page

    folder = Path(report_page.__file__).parent
    assert {path.name for path in folder.iterdir()} >= {"page.html", "style.css"}
    assert "matplotlib" in sys.modules
