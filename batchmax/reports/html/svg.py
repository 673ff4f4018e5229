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
from matplotlib.ticker import NullLocator

ROLES = ("ink", "muted", "grid", "bar", "right", "wrong", "line", "one", "two", "three", "four")
INKS = {role: f"#{code:06x}" for code, role in enumerate(ROLES, 1)}
"""Placeholder colors for matplotlib, by role. On the page they become classes, which the style sheet colors."""

TOP = 30
"""Height of the area above every chart where values appear on hover."""

TEXT_SIZE = 11
LINE_HEIGHT = 13

Anchor = Literal["start", "middle", "end"]
Margins = tuple[float, float, float, float]

_NAMES = {code: name for name, code in INKS.items()}
_SVG = "{http://www.w3.org/2000/svg}"
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_KEPT = ("d", "x", "y", "transform")
_KEPT_STYLES = ("stroke-width", "stroke-dasharray", "text-anchor", "opacity", "fill-opacity")
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
        self._texts: list[ET.Element] = []
        self._marks: list[ET.Element] = []

    def axes(self, margins: Margins, grid: Literal["x", "y"] = "y", **settings: Any) -> Axes:
        """Return new axes below the area for values, with grid lines at the ticks of an axis.

        ``margins`` are those on the left, bottom, right and top, in units of the view box. ``settings`` are properties
        of matplotlib axes, such as ``xlim``. Set limits before adding texts and marks, whose places depend on them.
        """
        left, bottom, right, top = margins
        box = (
            left / self.width,
            bottom / self.height,
            (self.width - left - right) / self.width,
            (self.height - bottom - top - TOP) / self.height,
        )
        axes = self.figure.add_axes(box, **settings)
        axes.patch.set_visible(False)
        for name, spine in axes.spines.items():
            spine.set_visible(name == "bottom")
            spine.set_color(INKS["muted"])
        axes.tick_params(length=0, which="both", labelsize=TEXT_SIZE, labelcolor=INKS["muted"])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_locator(NullLocator())
        axes.set_axisbelow(True)
        axes.grid(axis=grid)
        return axes

    def text(
        self, axes: Axes, x: float, y: float, text: str, anchor: Anchor = "end", ink: str = "ink", turn: float = 0
    ) -> None:
        """Add text from the data at a point of the axes, rotated by ``turn`` degrees; y is its vertical center."""
        right, down = self._point(axes, x, y)
        element = ET.Element(
            "text",
            {"class": f"f-{ink}", "x": f"{right:g}", "y": f"{down + TEXT_SIZE * 0.36:.2f}", "text-anchor": anchor},
        )
        if turn:
            element.set("transform", f"rotate({turn:g} {right:g} {down:g})")
        element.text = text
        self._texts.append(element)

    def mark(self, axes: Axes, left: float, right: float, bottom: float, top: float, text: str) -> None:
        """Show a text of one or two lines while the pointer is over a rectangle of the axes."""
        (x, y), (x2, y2) = self._point(axes, left, bottom), self._point(axes, right, top)
        element = ET.Element("g", {"class": "mark"})
        ET.SubElement(element, "title").text = text
        box = {"x": f"{min(x, x2):g}", "y": f"{min(y, y2):g}", "width": f"{abs(x2 - x):.4g}"}
        ET.SubElement(element, "rect", box | {"height": f"{abs(y - y2):.4g}"})
        place = {"class": "readout f-ink", "x": f"{self.width:g}", "y": str(TEXT_SIZE), "text-anchor": "end"}
        readout = ET.SubElement(element, "text", place)
        for number, line in enumerate(text.split("\n")[:2]):
            span = ET.SubElement(readout, "tspan", {"x": f"{self.width:g}", "dy": str(LINE_HEIGHT if number else 0)})
            span.text = line
        self._marks.append(element)

    def svg(self, description: str) -> Markup:
        """Return the chart as SVG; ``description`` is the text for screen readers."""
        buffer = io.StringIO()
        self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        drawn = ET.fromstring(buffer.getvalue())  # noqa: S314 - written by matplotlib, contains nothing from the data
        box = f"0 0 {self.width:g} {self.height:g}"
        root = ET.Element("svg", {"viewBox": box, "role": "img", "aria-label": description, "class": "chart"})
        root.extend([*_flattened(drawn), *self._texts, *self._marks])
        return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - escaped by ElementTree

    def _point(self, axes: Axes, x: float, y: float) -> tuple[float, float]:
        right, up = axes.transData.transform((x, y))
        return round(float(right), 2), round(float(self.height - up), 2)


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
                "grid.color": INKS["grid"],
                "grid.linewidth": 1,
            }
        )
        yield


def _flattened(drawn: ET.Element) -> Iterator[ET.Element]:
    """Yield the drawn elements in order, without matplotlib's groups and clip paths, which the page doesn't need."""
    for definitions in drawn.iter(f"{_SVG}defs"):
        definitions.clear()
    for element in drawn.iter():
        if element.tag in {f"{_SVG}path", f"{_SVG}text"} and (element.get("d") or element.text):
            flat = ET.Element(element.tag.removeprefix(_SVG), _attributes(element))
            flat.text = element.text
            yield flat


def _attributes(element: ET.Element) -> dict[str, str]:
    """Return an element's attributes with shorter numbers, and its style as classes and attributes."""
    style = dict(part.split(": ", 1) for part in element.get("style", "").split("; ") if ": " in part)
    kept = {name: _short(value) for name, value in element.attrib.items() if name in _KEPT}
    classes = []
    for prefix, name in (("f", "fill"), ("s", "stroke")):
        value = style.get(name)
        if value in _NAMES:
            classes.append(f"{prefix}-{_NAMES[value]}")
        elif value is not None:
            kept[name] = value
    kept |= {name: value for name, value in style.items() if name in _KEPT_STYLES}
    if classes:
        kept["class"] = " ".join(classes)
    if kept.get("transform", "").startswith("rotate(-0 "):
        del kept["transform"]
    return kept


def _short(value: str) -> str:
    value = _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value)
    return " ".join(value.split())
