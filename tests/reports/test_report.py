"""Tests the HTML report: numbers against other libraries, reproducible bytes, safe text, and rendering in a browser."""

from __future__ import annotations

import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from tests.support.browser import elements, measured, opened, picture
from tests.support.paths import ROOT
from tests.support.requirements import package
from tests.support.rows import lists

DIGITS = ROOT / "data" / "digits.parquet"
LIMIT = 3 << 20

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
    return pa.table(columns)


def written(src, tmp_path, name="page.html", **given):
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


def value(cell):
    """Parse a number as a page shows it."""
    if cell in {"–", ""}:
        return math.nan
    text = cell.replace("−", "-").replace(",", "").replace("∞", "inf").removeprefix("> ").removeprefix("< ")
    return float(text.removesuffix(" %")) / (100 if text.endswith(" %") else 1)


def column(rows, at):
    return [value(row[at]) for row in rows[1:]]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Return the text and path of the report on the sample, and the logits and labels."""
    table = pq.read_table(DIGITS)
    text, out = written(DIGITS, tmp_path_factory.mktemp("digits"), by="label")
    z = np.array(table["logits"].to_pylist(), np.float64)
    return text, out, z, table["label"].to_numpy()


def softmax(z):
    special = package("scipy.special")
    return special.softmax(z, axis=-1)


# The numbers


def test_bins_are_those_of_the_data(digits):
    """Count, mean confidence and accuracy of each bin agree with NumPy."""
    text, _, z, y = digits
    p = softmax(z)
    confidence, hits = p.max(1), p.argmax(1) == y
    rows = Tables(text).tables["reliability"]
    bins = np.minimum((confidence * 15).astype(int), 14)
    assert column(rows, 1) == [np.count_nonzero(bins == at) for at in range(15)]
    for at in range(15):
        inside = bins == at
        if inside.any():
            assert column(rows, 2)[at] == pytest.approx(confidence[inside].mean(), rel=1e-3)
            assert column(rows, 3)[at] == pytest.approx(hits[inside].mean(), rel=1e-3)


def test_losses_are_those_of_the_data(digits):
    """The loss histogram counts every row once, with the range of probabilities of each bin."""
    text, _, z, y = digits
    losses = -np.log(softmax(z)[np.arange(len(y)), y])
    rows = Tables(text).tables["loss"]
    for row in rows[1:]:
        low, high = (value(word) for word in row[0].split(" – "))
        assert value(row[2]) == np.count_nonzero((losses >= low) & (losses < high))
        p_low, p_high = (value(word) for word in row[1].split(" – "))
        assert (p_low, p_high) == pytest.approx((math.exp(-high), math.exp(-low)), rel=6e-3)
    assert sum(column(rows, 2)) == len(y)


def test_confidence_counts_right_and_wrong_rows(digits):
    """The histograms of correct and wrong rows by confidence agree with NumPy."""
    text, _, z, y = digits
    p = softmax(z)
    rows = Tables(text).tables["confidence"]
    for at, chosen in ((1, p.argmax(1) == y), (2, p.argmax(1) != y)):
        assert column(rows, at) == np.histogram(p.max(1)[chosen], 20, (0, 1))[0].tolist()


def test_confusion_and_classes_are_those_of_scikit_learn(digits):
    """Confusion matrix, precision, recall and F1 of each class agree with scikit-learn.

    The mean losses of the classes agree with NumPy.
    """
    metrics = package("sklearn.metrics")
    text, _, z, y = digits
    p = softmax(z)
    tables = Tables(text).tables
    matrix = [[value(cell) for cell in row[1:]] for row in tables["confusion"][1:]]
    assert matrix == metrics.confusion_matrix(y, p.argmax(1)).tolist()
    losses = -np.log(p[np.arange(len(y)), y])
    names = tables["confusion"][0][1:]
    precision, recall, f1, support = metrics.precision_recall_fscore_support(y, p.argmax(1))
    means = [losses[y == at].mean() for at in range(10)]
    order = np.argsort(means)[::-1]
    rows = tables["classes"]
    assert [row[0] for row in rows[1:]] == [names[at] for at in order]
    assert column(rows, 1) == pytest.approx(np.array(means)[order], rel=1e-3)
    assert column(rows, 2) == support[order].tolist()
    for at, figures in ((4, precision), (5, recall), (6, f1)):
        assert column(rows, at) == pytest.approx(figures[order], abs=1e-3)


def test_the_worst_rows_are_the_worst(digits):
    """The 20 rows with the largest losses are listed in the order of NumPy's losses, with their carried columns."""
    text, _, z, y = digits
    p = softmax(z)
    losses = -np.log(p[np.arange(len(y)), y])
    order = np.argsort(-losses)[:20]
    rows = Tables(text).tables["worst"]
    assert rows[0] == ["row", "label", "pred", "p_label", "p_pred", "loss", "id"]
    assert column(rows, 0) == order.tolist()
    assert column(rows, 5) == pytest.approx(losses[order], rel=1e-4)
    assert column(rows, 6) == pq.read_table(DIGITS)["id"].to_numpy()[order].tolist()


def test_the_row_drawn_is_the_worst_and_every_beta_is_softmax(digits):
    """The row drawn has the largest loss; its probabilities, and those for each β, agree with SciPy."""
    text, _, z, y = digits
    worst = int(np.argmax(-np.log(softmax(z)[np.arange(len(y)), y])))
    tables = Tables(text).tables
    rows = tables["row"]
    order = np.argsort(-z[worst])
    assert column(rows, 1) == pytest.approx(z[worst][order], rel=1e-4)
    assert column(rows, 2) == pytest.approx(softmax(z[worst])[order], rel=1e-4)
    assert [row[4] for row in rows[1:]].index("label") == order.tolist().index(y[worst])
    betas = tables["beta"]
    shown = [tables["confusion"][0][1:].index(name) for name in betas[0][1:-1]]
    assert y[worst] in shown
    for row in betas[1:]:
        p = softmax(value(row[0]) * z[worst])
        assert [value(cell) for cell in row[1:-1]] == pytest.approx(p[shown], rel=2e-2)
        assert value(row[-1]) == pytest.approx(-np.log(p[y[worst]]), rel=5e-3)


def test_groups_come_in_the_order_of_what_they_cost(digits):
    """Groups have correct rows, losses and accuracies, ordered by how much they add to the loss."""
    text, _, z, y = digits
    p = softmax(z)
    losses = -np.log(p[np.arange(len(y)), y])
    groups = sorted(range(10), key=lambda one: -(losses[y == one] - losses.mean()).sum())
    rows = next(rows for rows in Tables(text).tables.values() if rows[0][0] == "value")
    assert column(rows, 0) == groups
    assert column(rows, 1) == [np.count_nonzero(y == one) for one in groups]
    assert column(rows, 2) == pytest.approx([losses[y == one].mean() for one in groups], rel=1e-3)


def test_a_scored_file_makes_the_same_charts(digits, tmp_path):
    """A scored file gives the same charts from its probabilities, and the page says how it was scored."""
    text, *_ = digits
    scored = tmp_path / "scored.parquet"
    batchmax.score(DIGITS, str(scored), outputs="probs,loss,pred", temperature=1.0)
    other, _ = written(scored, tmp_path)
    ours, theirs = Tables(other).tables, Tables(text).tables
    for name in ("loss", "confidence", "confusion"):
        assert ours[name] == theirs[name]
    assert ours["row"][0][1] == "log-probability"
    assert "Log-probabilities, and the probabilities" in other
    assert "How these inputs were scored" in other
    assert "How these inputs were scored" not in text


def test_a_chosen_row_is_drawn(tmp_path):
    """The option ``row`` counts rows over all inputs; the result names the file."""
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    for path, z in ((first, [[5.0, 1.0]] * 3), (second, [[1.0, 2.5], [0.25, 4.0]])):
        pq.write_table(table_of(logits=lists(np.array(z, np.float32)), label=[0] * len(z)), path)
    found = batchmax.report([first, second], str(tmp_path / "x.html"), row=4)
    assert found.row == {"file": str(second), "row": 1}
    rows = Tables((tmp_path / "x.html").read_text()).tables["row"]
    assert column(rows, 1) == [4.0, 0.25]


def test_the_worst_row_is_found_in_any_row_group(tmp_path):
    """The row with the largest loss is found in any row group; of equal losses, it's the first.

    Counts are over all rows.
    """
    z = np.tile(np.array([4.0, 0.0], np.float32), (30, 1))
    z[[13, 25]] = (0.0, 4.0)
    path = tmp_path / "groups.parquet"
    pq.write_table(table_of(logits=lists(z), label=[0] * 30), path, row_group_size=10)
    found = batchmax.report(path, str(tmp_path / "x.html"))
    assert found.row == {"file": str(path), "row": 13}
    rows = Tables((tmp_path / "x.html").read_text()).tables["confusion"]
    assert [[value(cell) for cell in row[1:]] for row in rows[1:]] == [[28, 2], [0, 0]]


def test_without_labels_the_page_says_what_is_missing(tmp_path):
    """Without labels, the page has the confidence chart and the least certain row.

    It has no losses and says that there are no labels.
    """
    text, _ = written(DIGITS, tmp_path, label="none")
    tables = Tables(text).tables
    z = np.array(pq.read_table(DIGITS)["logits"].to_pylist(), np.float64)
    p = softmax(z)
    assert column(tables["confidence"], 1) == np.histogram(p.max(1), 20, (0, 1))[0].tolist()
    assert column(tables["row"], 2)[0] == pytest.approx(p.max(1).min(), rel=1e-4)
    assert "There are no labels" in text
    assert set(tables) == {"confidence", "row", "beta", "made"}


def test_many_classes_show_their_worst_pairs(tmp_path):
    """With over a thousand classes, the page lists the most confused pairs, with exact counts, instead of a matrix."""
    k, n = 1500, 400
    rng = np.random.default_rng(5)
    z = rng.normal(size=(n, k)).astype(np.float32)
    y = rng.integers(0, k, n)
    z[np.arange(n), y] += 9
    z[:7, 3], y[:7] = 50, 11
    z[7:11, 4], y[7:11] = 50, 12
    text, _ = written(table_of(logits=lists(z), label=y), tmp_path)
    rows = Tables(text).tables["confusion"]
    assert [row[:2] for row in rows[1:3]] == [["11", "3"], ["12", "4"]]
    assert column(rows, 2)[:2] == [7, 4]


def test_pairs_beyond_what_is_kept_are_forgotten_and_that_is_said(tmp_path, monkeypatch):
    """If there are too many pairs to keep, the most frequent one is still first.

    The page says that rare pairs are left out.
    """
    from batchmax.reports import collectors

    monkeypatch.setattr(collectors, "MOST_PAIRS", 8)
    rng = np.random.default_rng(6)
    z = rng.normal(size=(200, 1200)).astype(np.float32)
    y = rng.integers(0, 1200, 200)
    z[::4, 3], y[::4] = 50, 11
    text, _ = written(table_of(logits=lists(z), label=y), tmp_path)
    assert Tables(text).tables["confusion"][1][:2] == ["11", "3"]
    assert "what occurred seldom is left out" in text


NAN, INF = float("nan"), float("inf")
ODD = {
    "no rows": ([], [], {"n_classes": 3}),
    "one row": ([[1.0, 2.0]], [1], {}),
    "all ignored": ([[1.0, 2.0]] * 3, [-100] * 3, {}),
    "all bad": ([[NAN, 2.0]] * 3, [0] * 3, {"on_bad_row": "null"}),
    "a bad row asked for": ([[NAN, 2.0], [1.0, 2.0]], [0, 1], {"on_bad_row": "null", "row": 0}),
    "labels masked": ([[-INF, 2.0, 1.0]] * 3, [0] * 3, {}),
    "some masked": ([[-INF, 2.0, 1.0]] * 3, [0, 1, 2], {}),
    "huge logits": ([[3e38, -3e38], [1e-40, 1.0]], [1, 1], {}),
    "huge beta": ([[3.0, -3.0], [1.0, 1.0]], [1, 1], {"beta": 1e300}),
    "tiny beta": ([[3.0, -3.0], [1.0, 1.0]], [1, 1], {"beta": 1e-300}),
    "nothing wrong": ([[100.0, -900.0]] * 9, [0] * 9, {}),
    "no worst rows": ([[1.0, 2.0]] * 3, [0] * 3, {"worst": 0}),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_rows_make_a_page(name, tmp_path):
    """Unusual inputs, such as no rows or only bad ones, give a page without NaN."""
    z, y, given = ODD[name]
    table = table_of(logits=pa.array(z, pa.list_(pa.float32())), label=pa.array(y, pa.int64()))
    text, _ = written(table, tmp_path, **given)
    assert not re.search(r"\bnan\b", re.sub(r"nan_logit", "", text), re.IGNORECASE)
    assert "<h2" in text


def test_distributions_as_labels_make_a_page(tmp_path):
    """Target distributions give a page with losses but without charts that need a class."""
    table = table_of(logits=[[1.0, 2.0], [3.0, 4.0]], label=[[0.5, 0.5], [0.1, 0.9]])
    text, _ = written(table, tmp_path)
    assert "labels are distributions" in text
    assert {"worst", "row"} <= set(Tables(text).tables)


def test_columns_of_every_type_are_text(tmp_path):
    """Columns of every type are shown as text.

    Cases include nested types, binary data, and times that Python can't represent.
    """
    table = table_of(
        logits=[[1.0, 2.0, 3.0]] * 2,
        label=[0, 1],
        blob=pa.array([b"x" * 100, None]),
        word=pa.array(["x", "y"]).dictionary_encode(),
        when=pa.array([0, None], pa.timestamp("us", "UTC")),
        late=pa.array([2**62, -(2**62)], pa.timestamp("s")),
        mars=pa.array([1, 2], pa.timestamp("ns", "Mars/Phobos")),
        fine=pa.array([1, 2], pa.time64("ns")),
        price=pa.array([1, 2]).cast(pa.decimal128(28, 3)),
        both=pa.array([{"a": 1, "b": [1, 2]}, None]),
        map=pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
        long=pa.array([[1] * 100, [2]]),
        empty=pa.nulls(2),
    )
    text, _ = written(table, tmp_path)
    heading, first, _ = Tables(text).tables["worst"]
    shown = dict(zip(heading, first, strict=True))
    assert shown["word"] == "x"
    assert shown["blob"].endswith("(100 B)")
    assert shown["when"].startswith("1970-01-01")
    assert shown["both"] == "{a: 1, b: [1, 2]}"
    assert shown["long"].endswith("…] (100)")
    assert shown["empty"] == "–"


# The bytes


def test_the_same_input_makes_the_same_bytes(digits, tmp_path):
    """The page has the same bytes for any number of threads, any path, and any matplotlib settings of the user."""
    mpl = package("matplotlib")
    text, *_ = digits
    with mpl.rc_context({"axes.grid": True, "font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        again, _ = written(DIGITS, tmp_path, "other.html", by="label", threads=1)
    assert again == text


@pytest.mark.parametrize("k", [1000, 32_000])
def test_a_page_stays_small(k, tmp_path):
    """A page is below 3 MiB in the worst case.

    The case: many classes with long names, 100 rows, and 40 columns of long text that needs escaping.
    """
    n = 120
    rng = np.random.default_rng(k)
    z = rng.normal(size=(n, k)).astype(np.float32)
    texts = {f"<{'c' * 90}{at}>": ["\"&<>'" * 500] * n for at in range(40)}
    classes = tuple(f"{at}{'<&>' * 60}" for at in range(k))
    src = table_of(logits=lists(z), label=rng.integers(0, k, n), **texts)
    text, _ = written(src, tmp_path, worst=100, classes=classes, by=tuple(texts)[:2], memory_limit="2GiB")
    assert len(text.encode()) < LIMIT
    assert "more columns" in text


def test_nothing_of_the_data_becomes_an_element(tmp_path):
    """Hostile class names, column names, values and titles stay text; the page has only its own elements."""
    n = len(HOSTILE)
    columns = {HOSTILE[0]: HOSTILE, HOSTILE[1]: HOSTILE, HOSTILE[2]: [[text] for text in HOSTILE]}
    table = table_of(logits=lists(np.eye(n, dtype=np.float32)), label=[*range(1, n), 0], **columns)
    text, _ = written(table, tmp_path, classes=tuple(HOSTILE), by=HOSTILE[0], title=HOSTILE[2])
    found = elements(text)
    assert {tag for tag, _ in found} <= ELEMENTS
    for tag, attributes in found:
        assert not [name for name in attributes if name.startswith("on") or name in {"src", "href", "style", "action"}]
        if tag == "meta" and "http-equiv" in attributes:
            assert attributes["content"].startswith("default-src 'none'; style-src 'sha256-")
    assert HOSTILE[4] in {cell for row in Tables(text).tables["worst"] for cell in row}
    assert not re.search("[\u202e\u2066\x00\x1b\x7f]", text)


def test_the_table_of_a_chart_stands_for_it(digits):
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
    assert not re.search(r"#0000[0-9a-f]{2}", text), "a colour of matplotlib's that the style sheet does not decide"


# The file


def test_the_old_page_stays_unless_asked(tmp_path):
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


def test_a_page_that_came_meanwhile_is_not_replaced(tmp_path, monkeypatch):
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


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
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
    "a row that is not there": ({"row": 899}, "not one of the 899 rows"),
    "a row after the limit": ({"row": 10, "limit": 10}, "not one of the 10 rows"),
    "a negative row": ({"row": -1}, "no row -1"),
    "too many worst rows": ({"worst": 101}, "0 to 100"),
    "no bins": ({"bins": 0}, "--bins"),
    "groups without labels": ({"label": "none", "by": "id"}, "--by"),
    "a group that is not there": ({"by": "nothing"}, "nothing"),
    "resume": ({"if_exists": "resume"}, "--if-exists"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_one_line(name, tmp_path, monkeypatch):
    """An invalid option is a one-line error, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    given, message = WRONG[name]
    with pytest.raises(batchmax.BatchmaxError, match=message) as caught:
        batchmax.report(DIGITS, **({"out": "x.html"} | given))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_stream_that_can_be_read_once_is_refused(tmp_path):
    """A reader is refused because a report needs two passes; a table is accepted."""
    table = pq.read_table(DIGITS)
    with pytest.raises(batchmax.UsageError, match="two passes"):
        batchmax.report(table.to_reader(), str(tmp_path / "x.html"))
    assert batchmax.report(table, str(tmp_path / "x.html")).n_rows == 899


def test_without_the_libraries_the_remedy_is_named(tmp_path, monkeypatch):
    """Without Jinja2 and matplotlib, the error names the extra that installs them."""
    from batchmax.reports import report

    monkeypatch.setattr(report, "find_spec", lambda _: None)
    with pytest.raises(batchmax.UsageError, match=re.escape("pip install '.[insight]'")):
        batchmax.report(DIGITS, str(tmp_path / "x.html"))


def test_the_template_is_where_the_code_is():
    """The template and the style sheet are in the package, so that the wheel contains them."""
    from batchmax.reports.html import page as report_page

    folder = Path(report_page.__file__).parent
    assert {path.name for path in folder.iterdir()} >= {"page.html", "style.css"}
    assert "matplotlib" in sys.modules


# In a browser


@pytest.mark.browser
def test_a_browser_finds_nothing_to_complain_about(digits, tmp_path):
    """A page has no console messages, makes no requests, and has its elements in the DOM."""
    _, out, *_ = digits
    seen = opened(out, tmp_path)
    assert seen.console == []
    assert seen.asked == []
    tags = [tag for tag, _ in seen.elements]
    assert tags.count("svg") == 8
    assert tags.count("details") >= 7


@pytest.mark.browser
def test_the_browser_would_say_if_there_were_something(tmp_path):
    """The test's browser detects a page that logs an error and a page that makes a request."""
    page = tmp_path / "bad.html"
    page.write_text('<script>console.error("hi")</script><img src="http://example.invalid/x.png">')
    seen = opened(page, tmp_path)
    assert len(seen.console) == 1
    assert seen.asked == ["http://example.invalid/x.png"]


@pytest.mark.browser
def test_hostile_text_does_nothing_in_a_browser(tmp_path):
    """Hostile text adds no elements, console messages or requests in a real browser."""
    n = len(HOSTILE)
    table = table_of(logits=lists(np.eye(n, dtype=np.float32)), label=[*range(1, n), 0], text=HOSTILE)
    _, out = written(table, tmp_path, classes=tuple(HOSTILE), by="text", title=HOSTILE[2])
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
def test_the_page_fits(digits, tmp_path, names, width):
    """The page isn't wider than the window, and no text of a chart is outside the chart, also text shown on hover."""
    _, out, *_ = digits
    if names == "wide":
        classes = tuple(letter * 80 for letter in ("W", "m", "漢", "😀", "…", "i", "é", "-", "<", "Ж"))
        _, out = written(DIGITS, tmp_path, classes=classes, by="label")
    window, needed, outside, before = measured(out, tmp_path, LAYOUT, width)
    assert window == width
    assert needed <= window
    assert outside == []
    assert before == "hidden"


@pytest.mark.browser
def test_dark_light_and_narrow_are_different_pictures(digits, tmp_path):
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
