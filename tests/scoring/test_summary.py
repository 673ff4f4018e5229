"""Counts, the figures of the summary, and their formats."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmax.options.gates import SCORE_FIGURES
from batchmax.reports.report import Report
from batchmax.scoring.summary import ScoreSummary
from batchmax.scoring.tally import Tally
from batchmax.statuses import LAST_WITHOUT_LOSS, Status

OK = int(Status.OK)


def summary_of(tally, *, has_hits=True):
    summary = ScoreSummary()
    summary.count(tally, has_hits=has_hits)
    return summary


def counted(losses, *, status=None, nll=None, hits=None, weights=None, cuts=()):
    """Return the tally of rows, added in batches that are cut at ``cuts``."""
    losses = np.asarray(losses, np.float64)
    columns = [
        np.full(len(losses), OK, np.uint8) if status is None else np.asarray(status, np.uint8),
        losses,
        losses if nll is None else np.asarray(nll, np.float64),
        None if hits is None else np.asarray(hits, bool),
        None if weights is None else np.asarray(weights, np.float64),
    ]
    tally = Tally()
    edges = [0, *cuts, len(losses)]
    for start, end in pairwise(edges):
        tally.add(*(None if column is None else column[start:end] for column in columns))
    return tally


VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=60)


@given(VALUES, st.lists(st.integers(0, 60), max_size=5), st.randoms(use_true_random=False))
def test_batches_do_not_change_the_summary(losses, cuts, random):
    """Every number of the summary is the same to the last digit for any batches."""
    cuts = sorted(min(cut, len(losses)) for cut in cuts)
    rows = {
        "hits": [random.random() < 0.5 for _ in losses],
        "weights": [random.uniform(0.1, 3) for _ in losses],
        "status": [random.choice([OK, Status.MASKED_LABEL, Status.IGNORED, Status.NAN_LOGIT]) for _ in losses],
    }
    assert summary_of(counted(losses, **rows, cuts=cuts)) == summary_of(counted(losses, **rows))


@given(VALUES)
def test_the_mean_is_that_of_exact_sums(losses):
    """The mean loss and the log-likelihood agree with math.fsum within 4e-16."""
    summary = summary_of(counted(losses))
    assert summary.mean_loss == pytest.approx(math.fsum(losses) / len(losses), rel=4e-16, abs=1e-300)
    assert summary.log_likelihood == pytest.approx(-math.fsum(losses), rel=4e-16, abs=1e-300)


def test_small_values_are_not_lost_beside_a_large_one():
    """Sums are compensated: a plain sum of these values would be 1e16."""
    summary = summary_of(counted([1e16, *[0.5] * 100_000]))
    assert summary.log_likelihood == -(1e16 + 50_000)


def test_only_labelled_rows_are_counted():
    """Bad, ignored and unlabelled rows don't count in the means, whatever their values."""
    status = [OK, Status.NAN_LOGIT, Status.BAD_LABEL, Status.IGNORED, Status.UNLABELLED, Status.MASKED_LABEL, OK]
    losses = [1.0, math.nan, math.nan, 0.0, math.nan, 7.0, 4.0]
    summary = summary_of(counted(losses, status=status, hits=[1, 1, 1, 1, 1, 0, 0], nll=[0.5, *losses[1:]]))
    assert summary.mean_loss == 4.0
    assert summary.log_likelihood == -11.5
    assert summary.perplexity == pytest.approx(math.exp(11.5 / 3))
    assert summary.accuracy == 1 / 3
    assert (summary.n_rows, summary.bad_rows, summary.bad_rate) == (7, 2, 2 / 7)
    assert summary.status_counts == {
        "nan_logit": 1, "bad_label": 1, "ignored": 1, "unlabelled": 1, "masked_label": 1, "ok": 2,
    }  # fmt: skip


def test_weights_divide_the_mean():
    """With class weights, the mean is divided by their sum, as in PyTorch; the log-likelihood is unweighted."""
    summary = summary_of(counted([2.0, 6.0], nll=[1.0, 2.0], weights=[2.0, 3.0]))
    assert summary.mean_loss == 8.0 / 5.0
    assert summary.log_likelihood == -3.0


def test_infinite_losses_are_counted_apart():
    """With an infinite loss, mean, log-likelihood and perplexity are None; the accuracy is unaffected."""
    summary = summary_of(counted([1.0, math.inf, math.inf], hits=[1, 0, 0]))
    assert summary.infinite_losses == 2
    assert (summary.mean_loss, summary.log_likelihood, summary.perplexity) == (None, None, None)
    assert summary.accuracy == 1 / 3


@pytest.mark.parametrize(
    "tally",
    [
        Tally(),
        counted([]),
        counted([math.inf]),
        counted([1e308, 1e308]),
        counted([800.0]),
        counted([5e-324]),
        counted([0.0], weights=[0.0]),
        counted([math.nan], status=[Status.NAN_LOGIT]),
    ],
    ids=["nothing", "no rows", "infinite", "beyond float64", "perplexity beyond float64", "tiny", "no weight", "bad"],
)
def test_json_never_holds_nan_or_infinity(tally):
    """The summary is one line of strict JSON for any counts; missing values are null."""

    def refuse(constant):
        pytest.fail(f"{constant} in JSON")

    line = summary_of(tally).to_json()
    assert "\n" not in line
    values = json.loads(line, parse_constant=refuse)
    assert all(value is None or math.isfinite(value) for value in values.values() if isinstance(value, float | None))


def test_the_summary_has_the_names_of_the_documents():
    """The summary has the documented JSON keys."""
    assert set(json.loads(ScoreSummary().to_json())) >= {
        "n_rows", "n_classes", "mean_loss", "log_likelihood", "accuracy", "perplexity", "bad_rows", "bad_rate",
        "infinite_losses", "status_counts", "files", "bytes_read", "bytes_written", "seconds", "warnings", "version",
    }  # fmt: skip
    of_tokens = {"n_tokens", "bits_per_token", "bits_per_byte"}
    assert tuple(ScoreSummary().metrics()) == SCORE_FIGURES
    assert set(SCORE_FIGURES) - of_tokens <= set(ScoreSummary().as_dict())
    assert set(SCORE_FIGURES) <= set(ScoreSummary(token_status_counts={}).as_dict())


def test_a_result_is_a_short_table():
    """``print`` and notebooks show a result as a table, with names of files escaped in HTML."""
    summary = ScoreSummary(n_rows=1234, mean_loss=0.123456789)
    assert str(summary) == "n_rows      1,234\nmean_loss   0.123457\nbad_rows    0"
    assert "<tr><th>n_rows</th><td>1,234</td></tr>" in summary._repr_html_()
    assert "<b>" not in Report(out="<b>&")._repr_html_()
    assert "&lt;b&gt;&amp;" in Report(out="<b>&")._repr_html_()


@pytest.mark.parametrize("weighted", [False, True])
def test_a_tally_counts_what_the_statuses_say(weighted):
    """Rows without a loss aren't summed, and infinite losses are counted instead."""
    rng = np.random.default_rng(3)
    status = rng.integers(0, len(Status), 5000).astype(np.uint8)
    nll = rng.exponential(size=5000)
    nll[status <= LAST_WITHOUT_LOSS] = np.nan
    nll[status == Status.MASKED_LABEL] = np.inf
    hits = rng.random(5000) < 0.5
    weights = rng.random(5000) if weighted else None
    losses = nll * weights if weights is not None else nll

    tally = Tally()
    for rows in slice(0, 1234), slice(1234, 5000):
        tally.add(status[rows], losses[rows], nll[rows], hits[rows], None if weights is None else weights[rows])
    has_loss, finite = status > LAST_WITHOUT_LOSS, np.isfinite(losses)
    assert tally.statuses.tolist() == np.bincount(status, minlength=len(Status)).tolist()
    assert tally.judged == has_loss.sum()
    assert tally.hits == (hits & has_loss).sum()
    for sums, values in (tally.loss, losses), (tally.nll, nll):
        assert sums[0] + sums[1] == pytest.approx(math.fsum(values[finite]), rel=1e-15)
        assert sums[2] == (status == Status.MASKED_LABEL).sum()
    of_rows = np.ones(5000) if weights is None else weights
    assert tally.weight[0] + tally.weight[1] == pytest.approx(math.fsum(of_rows[has_loss]), rel=1e-15)


def test_a_tally_without_labels_counts_statuses_only():
    """There are no losses to sum."""
    tally = Tally()
    tally.add(np.array([Status.OK, Status.NAN_LOGIT, Status.OK], np.uint8))
    assert tally.rows == 3
    assert tally.bad_rows == 1
    assert (tally.judged, tally.hits, tally.loss.tolist()) == (0, 0, [0.0, 0.0, 0.0])
