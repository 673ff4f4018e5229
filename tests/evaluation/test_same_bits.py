"""Results of evaluation don't depend on the vector instructions that NumPy uses, which differ from CPU to CPU."""

from __future__ import annotations

import os
import subprocess
import sys

from numpy._core import _multiarray_umath as umath

from tests.support.processes import HANGS

PROGRAM = """
import numpy as np, pyarrow as pa
import batchmax

random = np.random.default_rng(0)
n = 3000
z = random.normal(size=n) * 3
labels = random.integers(0, 2, n)
noise = random.normal(size=n)
first, second = (
    pa.table({"logit": one, "label": labels, "c": np.arange(n) // 10}) for one in (z + labels, z + noise + labels)
)
sets, others = (
    pa.table({"logits": random.normal(size=(n, 3)).tolist(), "label": one, "c": np.arange(n) // 10})
    for one in [(random.random((n, 3)) < 0.4).tolist()] * 2
)
batchmax.score(first, "scored.parquet", columns="label")
batchmax.score(first, "logs.parquet", columns="label", outputs="log_probs")


def show(result):
    print({name: value for name, value in result.as_dict().items() if name != "seconds"})


for number, rows in enumerate((first, sets, "scored.parquet", "logs.parquet")):
    show(batchmax.evaluate(rows, curves_out=f"points{number}.csv"))
    print(open(f"points{number}.csv").read())
show(batchmax.evaluate(first, curves="binned", max_fpr=0.2, cluster="c"))
show(batchmax.compare(first, second, by="label", cluster="c"))
show(batchmax.compare(sets, others))
show(batchmax.compare(sets, others, cluster="c"))
show(batchmax.decide(first, at="precision>=0.5", cluster="c"))
show(batchmax.decide(sets, maximize="f1"))
show(batchmax.calibrate(sets))
print(batchmax.worst_rows(first, 20).to_pylist())
"""


def test_vector_instructions_of_numpy_do_not_change_results(tmp_path):
    """With NumPy limited to its baseline, all metrics, intervals, points and thresholds have the same bits."""
    extra = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name]]
    outputs = []
    for disabled in ("", " ".join(extra)):
        folder = tmp_path / str(len(outputs))
        folder.mkdir()
        environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": disabled}
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True,
            cwd=folder,
            env=environment,
            timeout=HANGS,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr.decode()
        outputs.append(ended.stdout)
    assert len(outputs[0]) > 100_000
    assert outputs[0] == outputs[1]
