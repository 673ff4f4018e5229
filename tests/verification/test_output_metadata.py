"""The metadata of an output name the columns of the logits, and the tables of activations are complete."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.activations import ACTIVATIONS, LOSSES
from batchmax.errors import UsageError
from batchmax.verification.exact import DEFINITIONS, OTHER_LOSSES


@pytest.mark.parametrize(
    ("logits", "recorded"),
    [(None, "logit_*"), ("logit_?", "logit_?"), ("b,a", "b,a"), ("[ab]", "[ab]"), ("list", ["list"])],
)
def test_the_metadata_record_the_logits_as_given(tmp_path, logits, recorded):
    """One column is recorded by its name, several by their pattern; ``verify`` needs no more, whatever is copied."""
    numbers = np.random.default_rng(0).standard_normal((30, 5))
    columns = dict(zip(("logit_0", "logit_1", "a", "b"), numbers.T, strict=False))
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({**columns, "list": list(numbers), "id": range(30)}), source)
    batchmax.score(source, str(out), logits=logits, columns="id")
    assert json.loads(pq.read_metadata(out).metadata[b"batchmax"])["logits"] == recorded
    assert batchmax.verify(out, source, sample=30).sampled_rows == 30


def test_an_unknown_pattern_is_a_usage_error(tmp_path):
    """If the recorded pattern matches no column of the inputs, the error names the option to give."""
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    table = pa.table({"logit_0": [0.5, 1.0], "logit_1": [0.1, 0.2]})
    pq.write_table(table, source)
    batchmax.score(source, str(out))
    scored = pq.read_table(out)
    recorded = json.loads(scored.schema.metadata[b"batchmax"]) | {"logits": "2 columns 'logit_0' … 'logit_1' (double)"}
    metadata = scored.schema.metadata | {b"batchmax": json.dumps(recorded).encode()}
    pq.write_table(scored.replace_schema_metadata(metadata), out, write_page_checksum=True)
    with pytest.raises(UsageError, match="--logits"):
        batchmax.verify(out, source)
    assert batchmax.verify(out, source, logits="logit_*").sampled_rows == 2


def test_every_activation_and_loss_has_a_definition():
    """Every activation has an exact definition, and so has every loss that isn't a log-likelihood."""
    assert DEFINITIONS.keys() == ACTIVATIONS.keys()
    likelihoods = {activation.likelihood for activation in ACTIVATIONS.values()}
    assert OTHER_LOSSES.keys() == LOSSES.keys() - likelihoods
    numbers = [activation.number for activation in ACTIVATIONS.values()]
    assert numbers == list(range(len(ACTIVATIONS)))
