"""The report on the sample."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.report_pages import DIGITS, write_report


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Return the text and path of the report on the sample, and the logits and labels."""
    table = pq.read_table(DIGITS)
    text, out = write_report(DIGITS, tmp_path_factory.mktemp("digits"), by="label")
    z = np.array(table["logits"].to_pylist(), np.float64)
    return text, out, z, table["label"].to_numpy()
