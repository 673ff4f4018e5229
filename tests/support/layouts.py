"""The files in ``data/layouts``: the same logits in each layout of a column."""

from __future__ import annotations

from tests.support.paths import DATA

LAYOUTS = sorted(path.stem.removeprefix("digits_") for path in (DATA / "layouts").glob("*.parquet"))
READ_AS = {
    "nested": {"logits": "outputs.logits"},
    "binary": {"logits_dtype": "float32"},
    "bfloat16": {"logits_dtype": "bfloat16"},
}


def digits(layout="list"):
    return DATA / "layouts" / f"digits_{layout}.parquet"
