"""Render a report as one HTML page: numbers and text in, self-contained HTML out, without scripts or network access.

Jinja2 or ElementTree escapes everything from the data. In addition, the page's content security policy allows only its
one style sheet, by hash, so that markup injected from the data could do nothing. Doesn't know files or Arrow.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from batchmax import __version__
from batchmax.reports.html.charts import (
    MOST_CELLS,
    Chart,
    confidence_chart,
    confusion_chart,
    loss_chart,
    reliability_chart,
)
from batchmax.reports.html.formatting import UNIT, positive_name
from batchmax.reports.html.headline import lead, tiles
from batchmax.reports.html.page_model import Facts
from batchmax.reports.html.rankings import class_chart, pair_chart, pairs_of, slice_section
from batchmax.reports.html.row_charts import row_charts
from batchmax.reports.html.svg import INKS, drawing


def page(facts: Facts) -> str:
    """Return the page. Equal facts give equal text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style, metrics = _style(), facts.metrics
    UNIT.set(facts.unit)
    with drawing():
        return environment.from_string(_resource("page.html")).render(
            facts=facts,
            version=__version__,
            style=Markup(style),  # noqa: S704 - a file of this package
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
            lead=lead(facts),
            tiles=tiles(facts),
            charts=_charts(facts),
            row_charts=None if facts.row is None else row_charts(facts.row),
            slices=[
                slice_section(place, column, groups, metrics.mean_loss)
                for place, (column, groups) in enumerate(metrics.slices.items(), 1)
            ],
        )


def _charts(facts: Facts) -> list[Chart]:
    metrics = facts.metrics
    drawn = [
        loss_chart(metrics.losses, metrics.infinite_losses),
        reliability_chart(metrics.bins, metrics.ece, positive_name(metrics)),
        confidence_chart(metrics.confidences),
        class_chart(metrics.per_class),
        _confusion(facts),
    ]
    return [chart for chart in drawn if chart is not None]


def _confusion(facts: Facts) -> Chart | None:
    metrics = facts.metrics
    if metrics.confusion is not None and len(metrics.confusion) <= MOST_CELLS:
        names = [one["class"] for one in metrics.per_class]
        return confusion_chart(metrics.confusion, names) if any(map(any, metrics.confusion)) else None
    pairs = facts.confused if metrics.confusion is None else pairs_of(metrics.confusion)
    return pair_chart(pairs, metrics.per_class)


def _style() -> str:
    inks = [f".f-{name} {{ fill: var(--{name}); }} .s-{name} {{ stroke: var(--{name}); }}" for name in INKS]
    return "\n".join(["", _resource("style.css").strip(), *inks, ""])


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
