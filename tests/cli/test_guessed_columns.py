"""A column of logits that neither an option nor its name determines, in every command."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

LABELS = [0, 1, 2, 0, 1]
PROBS = np.random.default_rng(3).dirichlet(np.ones(3), len(LABELS)).astype(np.float32)


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    """Return a function that runs a command in an empty folder and returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return run


@pytest.mark.parametrize("name", ["p", "scores"])
def test_only_a_named_column_of_probable_probabilities_is_read(name, run, tmp_path):
    """A column that no option names, and whose name isn't that of logits, may not look like probabilities.

    ``inspect`` suggests what to do, and the command that it suggests runs.
    """
    pq.write_table(pa.table({name: PROBS.tolist(), "label": LABELS}), tmp_path / "p.parquet")
    pq.write_table(pa.table({"logits": (4 * PROBS).tolist(), "label": LABELS}), tmp_path / "z.parquet")
    commands = ["score p.parquet -o o.parquet", "evaluate p.parquet", "calibrate p.parquet -o c.json"]
    commands += ["report p.parquet -o r.html", "show p.parquet --worst 3", "show p.parquet --row 0"]
    for words in (*commands, "compare p.parquet z.parquet"):
        code, out, err = run(*words.split())
        assert (code, out) == (2, "")
        assert f"is column {name!r}, and the rows look like probabilities; state what it holds: --logits {name} " in err
    code, _, err = run("compare", "z.parquet", "p.parquet")
    assert code == 2
    assert f"--logits-b {name} --input-b probs" in err
    _, out, _ = run("inspect", "p.parquet")
    suggested = next(line for line in out.splitlines() if line.startswith("to score"))
    assert suggested.endswith(f"--logits {name} --input probs")
    assert run(*suggested.split()[3:])[0] == 0
