"""``report``, ``show`` and ``compare`` with a calibration."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import UsageError
from tests.support.paths import DATA
from tests.support.report_pages import write_report

DIGITS = str(DATA / "digits.parquet")


@pytest.fixture(params=["temperature", "vector"])
def calibration(tmp_path, request):
    path = tmp_path / "calibration.json"
    batchmax.calibrate(DIGITS, str(path), method=request.param, holdout=0.2)
    return str(path)


def test_a_page_of_calibrated_logits(calibration, tmp_path):
    """The report has the metrics of ``evaluate`` with the calibration, and its command has ``--calibration``."""
    page, _ = write_report(DIGITS, tmp_path, calibration=calibration)
    expected = batchmax.evaluate(DIGITS, calibration=calibration)
    result = batchmax.report(DIGITS, str(tmp_path / "b.html"), calibration=calibration)
    assert (result.mean_loss, result.ece) == (expected.mean_loss, expected.ece)
    assert f"--calibration {calibration}" in page
    assert "--calibrated-classes" not in page
    assert "--scale" not in page


def test_a_row_is_shown_as_it_was_calibrated(calibration, tmp_path, capsys):
    """``show`` prints the probabilities and losses that ``score`` writes with the same calibration."""
    out = str(tmp_path / "scored.parquet")
    batchmax.score(DIGITS, out, calibration=calibration, dtype="float64")
    expected = batchmax.evaluate(out).mean_loss
    assert main(["show", DIGITS, "--row", "5", "--calibration", calibration, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["scores"][0]["probs"]
    np.testing.assert_allclose(shown, pq.read_table(out)["probs"][5].as_py(), rtol=1e-6, atol=2**-149)
    assert main(["show", DIGITS, "--worst", "1", "--calibration", calibration, "--json"]) == 0
    losses = pq.read_table(out)["loss"].to_numpy()
    assert json.loads(capsys.readouterr().out)[0]["loss"] == pytest.approx(losses.max(), rel=1e-6)
    assert expected == pytest.approx(losses.mean(), rel=1e-6)


def test_two_files_are_compared_as_calibrated(calibration, tmp_path):
    """``compare`` calibrates both inputs, and rejects a calibration if an input is a scored file."""
    result = batchmax.compare(DIGITS, DIGITS, calibration=calibration)
    expected = batchmax.evaluate(DIGITS, calibration=calibration).mean_loss
    assert (result.mean_loss_a, result.mean_loss_change) == (pytest.approx(expected, rel=1e-9), 0.0)
    out = str(tmp_path / "scored.parquet")
    batchmax.score(DIGITS, out)
    with pytest.raises(UsageError, match="score computed with a temperature"):
        batchmax.compare(DIGITS, out, calibration=calibration)
