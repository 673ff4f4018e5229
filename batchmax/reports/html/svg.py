"""SVG charts drawn with matplotlib, styled by the page: colors as classes, values on hover, no ids, no inline styles.

matplotlib draws geometry, ticks and fixed texts. Text from the data is never passed to it, because class names can be
anything: matplotlib may parse them as math, or its fonts may lack their characters. Such text is added to the SVG
afterwards, as are the hover areas. Doesn't know what a chart shows.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any, Literal
from xml.etree import ElementTree as ET

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INKS = {
    "ink": "#000001",
    "muted": "#000002",
    "grid": "#000003",
    "bar": "#000004",
    "right": "#000005",
    "wrong": "#000006",
    "line": "#000007",
    "one": "#000008",
    "two": "#000009",
    "three": "#00000a",
    "four": "#00000b",
}
"""Placeholder colors for matplotlib, by role. On the page they become classes, which the style sheet colors."""

TOP = 30
"""Height of the area above every chart where values appear on hover."""

TEXT_SIZE = 11
LINE_HEIGHT = 13

Anchor = Literal["start", "middle", "end"]

_NAMES = {code: name for name, code in INKS.items()}
_SVG = "{http://www.w3.org/2000/svg}"
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_KEPT = ("d", "x", "y", "transform")
_LASTING = ("stroke-width", "stroke-dasharray", "text-anchor", "opacity", "fill-opacity")
"""Styles of matplotlib to keep, as attributes, so that the page needs no inline styles."""


class Canvas:
    """A chart that is being drawn.

    Parameters
    ----------
    width, height
        Size in units of the SVG view box, without the area for values on hover.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height + TOP
        self.figure = Figure(figsize=(self.width / 72, self.height / 72), dpi=72)
        FigureCanvasSVG(self.figure)
        self.figure.patch.set_visible(False)
        self._texts: list[tuple[Axes, float, float, str, Anchor, str, float]] = []
        self._marks: list[tuple[Axes, tuple[float, float, float, float], str]] = []

    def axes(self, left: float, bottom: float, right: float, top: float, **given: Any) -> Axes:
        """Return new axes with these margins in units of the view box, below the area for values."""
        box = (
            left / self.width,
            bottom / self.height,
            (self.width - left - right) / self.width,
            (self.height - bottom - top - TOP) / self.height,
        )
        axes = self.figure.add_axes(box, **given)
        axes.patch.set_visible(False)
        for name, spine in axes.spines.items():
            spine.set_visible(name == "bottom")
            spine.set_color(INKS["muted"])
        axes.tick_params(length=0, which="both", labelsize=TEXT_SIZE, labelcolor=INKS["muted"])
        axes.set_axisbelow(True)
        return axes

    def text(
        self, axes: Axes, x: float, y: float, text: str, anchor: Anchor = "end", ink: str = "ink", turn: float = 0
    ) -> None:
        """Add text from the data at a point of the axes, rotated by ``turn`` degrees; y is its vertical center."""
        self._texts.append((axes, x, y, text, anchor, ink, turn))

    def mark(self, axes: Axes, left: float, right: float, bottom: float, top: float, text: str) -> None:
        """Show a text of one or two lines while the pointer is over a rectangle of the axes."""
        self._marks.append((axes, (left, right, bottom, top), text))

    def svg(self, description: str) -> Markup:
        """Return the chart as SVG; ``description`` is the text for screen readers."""
        buffer = io.StringIO()
        self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        drawn = ET.fromstring(buffer.getvalue())  # noqa: S314 - written by matplotlib, contains nothing from the data
        root = ET.Element(
            "svg",
            {
                "viewBox": f"0 0 {self.width:g} {self.height:g}",
                "role": "img",
                "aria-label": description,
                "class": "chart",
            },
        )
        for group in drawn.iter(f"{_SVG}path"), drawn.iter(f"{_SVG}text"):
            for element in group:
                _adopt(element)
        root.extend(_flattened(drawn))
        root.extend(self._text(*given) for given in self._texts)
        root.extend(self._mark(axes, box, text) for axes, box, text in self._marks)
        return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - escaped by ElementTree

    def _point(self, axes: Axes, x: float, y: float) -> tuple[float, float]:
        right, up = axes.transData.transform((x, y))
        return round(float(right), 2), round(float(self.height - up), 2)

    def _text(self, axes: Axes, x: float, y: float, text: str, anchor: Anchor, ink: str, turn: float) -> ET.Element:
        right, down = self._point(axes, x, y)
        element = ET.Element(
            "text",
            {"class": f"f-{ink}", "x": f"{right:g}", "y": f"{down + TEXT_SIZE * 0.36:.2f}", "text-anchor": anchor},
        )
        if turn:
            element.set("transform", f"rotate({turn:g} {right:g} {down:g})")
        element.text = text
        return element

    def _mark(self, axes: Axes, box: tuple[float, float, float, float], text: str) -> ET.Element:
        left, bottom = self._point(axes, box[0], box[2])
        right, top = self._point(axes, box[1], box[3])
        element = ET.Element("g", {"class": "mark"})
        ET.SubElement(element, "title").text = text
        ET.SubElement(
            element,
            "rect",
            {
                "x": f"{min(left, right):g}",
                "y": f"{min(top, bottom):g}",
                "width": f"{abs(right - left):.4g}",
                "height": f"{abs(bottom - top):.4g}",
            },
        )
        lines = text.split("\n")[:2]
        read = ET.SubElement(element, "text", self._strip("readout f-ink"))
        for number, line in enumerate(lines):
            span = ET.SubElement(read, "tspan", {"x": f"{self.width:g}", "dy": str(LINE_HEIGHT if number else 0)})
            span.text = line
        return element

    def _strip(self, classes: str) -> dict[str, str]:
        return {"class": classes, "x": f"{self.width:g}", "y": str(TEXT_SIZE), "text-anchor": "end"}


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Use fixed matplotlib settings instead of the user's, so that the SVG has the same bytes each time."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "batchmax",
                "text.parse_math": False,
                "font.size": TEXT_SIZE,
                "axes.labelcolor": INKS["muted"],
                "axes.labelsize": TEXT_SIZE,
                "text.color": INKS["ink"],
                "axes.unicode_minus": True,
                "grid.color": INKS["grid"],
                "grid.linewidth": 1,
            }
        )
        yield


def _adopt(element: ET.Element) -> None:
    """Convert an element's style to classes and attributes, and shorten its numbers."""
    style = dict(part.split(": ", 1) for part in element.get("style", "").split("; ") if ": " in part)
    kept = {name: _short(value) for name, value in element.attrib.items() if name in _KEPT}
    classes = []
    for prefix, name in (("f", "fill"), ("s", "stroke")):
        value = style.get(name)
        if value in _NAMES:
            classes.append(f"{prefix}-{_NAMES[value]}")
        elif value is not None:
            kept[name] = value
    kept |= {name: value for name, value in style.items() if name in _LASTING}
    if classes:
        kept["class"] = " ".join(classes)
    if kept.get("transform", "").startswith("rotate(-0 "):
        del kept["transform"]
    element.attrib.clear()
    element.attrib.update(kept)


def _flattened(drawn: ET.Element) -> Iterator[ET.Element]:
    """Yield the drawn elements in order, without matplotlib's groups, which the page doesn't need."""
    for unseen in drawn.iter(f"{_SVG}defs"):
        unseen.clear()
    for element in drawn.iter():
        if element.tag in {f"{_SVG}path", f"{_SVG}text"} and (element.get("d") or element.text):
            element.tag = element.tag.removeprefix(_SVG)
            element.tail = None
            yield element


def _short(value: str) -> str:
    value = _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
    return " ".join(value.split())
