"""Tests the HTML report in a browser."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.browser import measured, opened, picture
from tests.support.report_pages import DIGITS, ELEMENTS, HOSTILE, table_of, write_report
from tests.support.requirements import package
from tests.support.rows import lists


@pytest.mark.browser
def test_browser_reports_no_errors_or_requests(digits, tmp_path):
    """A page has no console messages, makes no requests, and has its elements in the DOM."""
    _, out, *_ = digits
    seen = opened(out, tmp_path)
    assert seen.console == []
    assert seen.asked == []
    tags = [tag for tag, _ in seen.elements]
    assert tags.count("svg") == 8
    assert tags.count("details") >= 7


@pytest.mark.browser
def test_browser_reports_errors_and_requests(tmp_path):
    """The test's browser detects a page that logs an error and a page that makes a request."""
    page = tmp_path / "bad.html"
    page.write_text('<script>console.error("hi")</script><img src="http://example.invalid/x.png">')
    seen = opened(page, tmp_path)
    assert len(seen.console) == 1
    assert seen.asked == ["http://example.invalid/x.png"]


@pytest.mark.browser
def test_hostile_text_has_no_effect_in_a_browser(tmp_path):
    """Hostile text adds no elements, console messages or requests in a real browser."""
    n = len(HOSTILE)
    table = table_of(logits=lists(np.eye(n, dtype=np.float32)), label=[*range(1, n), 0], text=HOSTILE)
    _, out = write_report(table, tmp_path, classes=tuple(HOSTILE), by="text", title=HOSTILE[2])
    seen = opened(out, tmp_path)
    assert seen.console == []
    assert seen.asked == []
    assert {tag for tag, _ in seen.elements} <= ELEMENTS


LAYOUT = """
const outside = [];
for (const chart of document.querySelectorAll('svg.chart')) {
    const box = chart.getBoundingClientRect();
    for (const text of chart.querySelectorAll('text')) {
        const one = text.getBoundingClientRect();
        const across = one.left < box.left - 1 || one.right > box.right + 1;
        if (across || one.top < box.top - 1 || one.bottom > box.bottom + 1)
            outside.push(text.textContent);
    }
}
const root = document.documentElement;
const before = getComputedStyle(document.querySelector('.readout')).visibility;
return [root.clientWidth, root.scrollWidth, outside, before];
"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("names", ["plain", "wide"])
def test_report_fits_the_window(digits, tmp_path, names, width):
    """The page isn't wider than the window, and no text of a chart is outside the chart, also text shown on hover."""
    _, out, *_ = digits
    if names == "wide":
        classes = tuple(letter * 80 for letter in ("W", "m", "漢", "😀", "…", "i", "é", "-", "<", "Ж"))
        _, out = write_report(DIGITS, tmp_path, classes=classes, by="label")
    window, needed, outside, before = measured(out, tmp_path, LAYOUT, width)
    assert window == width
    assert needed <= window
    assert outside == []
    assert before == "hidden"


@pytest.mark.browser
def test_report_follows_the_color_scheme(digits, tmp_path):
    """The page follows the preferred color scheme: the background is light or dark."""
    image = package("PIL.Image")
    _, out, *_ = digits
    corners = []
    for name, scheme, width in (("light", 1, 1280), ("dark", 0, 390)):
        path = tmp_path / f"{name}.png"
        picture(out, tmp_path, path, width, 900, f"--blink-settings=preferredColorScheme={scheme}")
        with image.open(path) as shot:
            corners.append(shot.convert("L").getpixel((3, 3)))
    assert corners[0] > 240
    assert corners[1] < 40
