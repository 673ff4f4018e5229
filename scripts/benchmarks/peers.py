"""The same job with other libraries, as a careful user of each would write it; run as a script, one process each.

::

    peers.py NAME SOURCE TARGET CODEC CLASSES    # read SOURCE, write id, label, probs and loss to TARGET
    peers.py … CLASSES sync                      # … and make TARGET durable
    peers.py check OURS THEIRS                   # exit 1, saying what differs, unless both hold the same

Names that end in ``-sequences`` read one sequence a row (nested lists of logits, a list of labels) and write id, the
losses of its tokens, and their mean. ``check-sequences`` compares those outputs.

This module doesn't know batchmax or how a process is measured, and a peer imports only what it needs. Row groups hold
about 16 MiB of logits in input and output. Statistics and dictionaries, which are useless for floats, are disabled
where a library allows it. Buffers are reused where a library accepts them.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from typing import Any

ROW_GROUP_BYTES = 16 * 2**20


def polars(source: str, target: str, codec: str, n_classes: int) -> None:
    """Polars, streaming. Uses arrays of fixed width, because arithmetic on lists takes up to eight times as long."""
    import polars as pl

    compression: Any = "uncompressed" if codec == "none" else codec

    z, e, total = pl.col("z"), pl.col("e"), pl.col("total")
    (
        pl.scan_parquet(source)
        .with_columns(z=pl.col("logits").list.to_array(n_classes))
        .with_columns(top=z.arr.max(), of_label=z.arr.get(pl.col("label")))
        .with_columns(e=(z - pl.col("top")).arr.eval(pl.element().exp(), as_list=False))
        .with_columns(total=e.arr.sum())
        .select(
            "id",
            "label",
            probs=(e / total).arr.to_list(),
            loss=total.log() + pl.col("top") - pl.col("of_label"),
        )
        .sink_parquet(
            target,
            compression=compression,
            statistics=False,
            row_group_size=rows_a_group(n_classes),
        )
    )


def duckdb(source: str, target: str, codec: str, n_classes: int) -> None:
    """DuckDB, list functions in SQL, in the order of the input."""
    import duckdb as duck

    duck.execute(f"""
        COPY (
            WITH tops AS (SELECT id, label, logits, list_max(logits) AS top FROM '{source}'),
            exponentials AS (
                SELECT id, label, top - logits[label + 1] AS below, list_transform(logits, lambda z: exp(z - top)) AS e
                FROM tops
            ),
            sums AS (SELECT *, list_sum(e) AS total FROM exponentials)
            SELECT id, label, list_transform(e, lambda x: (x / total)::FLOAT) AS probs,
                (ln(total) + below)::FLOAT AS loss
            FROM sums
        ) TO '{target}' (
            FORMAT parquet, COMPRESSION {"uncompressed" if codec == "none" else codec},
            ROW_GROUP_SIZE {max(2048, rows_a_group(n_classes))}
        )
    """)  # noqa: S608 - the paths are the benchmark's own


def torch(source: str, target: str, codec: str, _: int, *, ahead: bool = False) -> None:
    """PyTorch, one row group at a time, into reused buffers; the loss from the log-softmax, as in ``cross_entropy``."""
    import torch as th

    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # the array is only read
    probs = scratch = th.empty(0)

    def score(logits: Any, labels: Any) -> tuple[Any, Any]:
        nonlocal probs, scratch
        if len(logits) > len(probs):
            probs, scratch = th.empty(logits.shape), th.empty(logits.shape)
        z, out, logs = th.from_numpy(logits), probs[: len(logits)], scratch[: len(logits)]
        th.softmax(z, -1, out=out)
        th.log_softmax(z, -1, out=logs)
        losses = logs.gather(1, th.from_numpy(labels)[:, None]).neg_()
        return out.numpy(), losses[:, 0].numpy()

    by_row_groups(source, target, codec, score, ahead=ahead)


def torch_ahead(source: str, target: str, codec: str, n_classes: int) -> None:
    """PyTorch, one row group at a time, while a second thread reads the next one ahead."""
    torch(source, target, codec, n_classes, ahead=True)


def scipy(source: str, target: str, codec: str, _: int) -> None:
    """SciPy, one row group at a time."""
    import numpy as np
    from scipy.special import log_softmax, softmax

    def score(logits: Any, labels: Any) -> tuple[Any, Any]:
        losses = -np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], axis=1)[:, 0]
        return softmax(logits, axis=1), losses

    by_row_groups(source, target, codec, score)


def pyarrow_copy(source: str, target: str, codec: str, _: int) -> None:
    """No arithmetic: the logits are written as probabilities, and the first logit of each row as its loss."""
    by_row_groups(source, target, codec, lambda logits, _: (logits, logits[:, 0].copy()))


def pyarrow_read(source: str, *_: Any) -> None:
    """Only read the logits, one row group at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        for group in range(file.num_row_groups):
            file.read_row_group(group, columns=["logits"])


def pyarrow_scan(source: str, *_: Any) -> None:
    """Only read the logits, with a dataset that reads row groups in parallel."""
    import pyarrow.dataset as ds

    for _batch in ds.dataset(source).scanner(columns=["logits"]).to_batches():
        pass


# Sequences: one more level of lists


def polars_sequences(source: str, target: str, codec: str, n_classes: int) -> None:
    """Polars, streaming: explode tokens to rows, use arrays of fixed width, and group the losses by sequence."""
    import polars as pl

    compression: Any = "uncompressed" if codec == "none" else codec
    z, top = pl.col("z"), pl.col("top")
    (
        pl.scan_parquet(source)
        .explode("logits", "labels")
        .with_columns(z=pl.col("logits").list.to_array(n_classes))
        .with_columns(top=z.arr.max(), of_label=z.arr.get(pl.col("labels")))
        .with_columns(total=(z - top).arr.eval(pl.element().exp(), as_list=False).arr.sum())
        .select("id", loss=pl.col("total").log() + top - pl.col("of_label"))
        .group_by("id", maintain_order=True)
        .agg(losses=pl.col("loss"), mean_loss=pl.col("loss").mean())
        .sink_parquet(target, compression=compression)
    )


def torch_sequences(source: str, target: str, codec: str, n_classes: int, *, ahead: bool = False) -> None:
    """PyTorch, one row group at a time, the log-softmax into a reused buffer."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch as th

    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # the array is only read
    schema = pa.schema({"id": pa.int64(), "losses": pa.list_(pa.float32()), "mean_loss": pa.float64()})
    scratch = th.empty(0)
    with pq.ParquetFile(source) as file, pq.ParquetWriter(target, schema, compression=codec) as writer:
        for table in tables(file, ahead=ahead):
            rows = table["logits"].combine_chunks()
            tokens = th.from_numpy(rows.flatten().flatten().to_numpy()).view(-1, n_classes)
            labels = th.from_numpy(table["labels"].combine_chunks().flatten().to_numpy())
            if len(tokens) > len(scratch):
                scratch = th.empty(tokens.shape)
            logs = scratch[: len(tokens)]
            th.log_softmax(tokens, -1, out=logs)
            losses = logs.gather(1, labels[:, None]).neg_()[:, 0].numpy()
            means = [
                float(np.mean(losses[start:stop], dtype=np.float64))
                for start, stop in pairwise(rows.offsets.to_numpy())
            ]
            nested = pa.ListArray.from_arrays(rows.offsets, pa.array(losses))
            writer.write_table(pa.table([table["id"], nested, pa.array(means)], schema=schema))


def torch_ahead_sequences(source: str, target: str, codec: str, n_classes: int) -> None:
    """PyTorch, one row group at a time, while a second thread reads the next one ahead."""
    torch_sequences(source, target, codec, n_classes, ahead=True)


PEERS: dict[str, Callable[[str, str, str, int], None]] = {
    "polars": polars,
    "duckdb": duckdb,
    "torch": torch,
    "torch-ahead": torch_ahead,
    "scipy": scipy,
    "pyarrow-copy": pyarrow_copy,
    "pyarrow-read": pyarrow_read,
    "pyarrow-scan": pyarrow_scan,
    "polars-sequences": polars_sequences,
    "torch-sequences": torch_sequences,
    "torch-ahead-sequences": torch_ahead_sequences,
}


def rows_a_group(n_classes: int) -> int:
    """Return the number of rows that hold 16 MiB of float32 logits."""
    return max(1, ROW_GROUP_BYTES // (4 * n_classes))


def by_row_groups(
    source: str, target: str, codec: str, score: Callable[[Any, Any], tuple[Any, Any]], *, ahead: bool = False
) -> None:
    """Read each row group with pyarrow without a copy, call ``score``, and write the result with pyarrow.

    ``score`` takes logits (n_rows, K) float32 and labels (n_rows,) int64 and returns probabilities and losses. They are
    written before the next call, so ``score`` may reuse its buffers.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = ["id", "label", "loss"]
    schema = pa.schema({"id": pa.int64(), "label": pa.int64(), "probs": pa.list_(pa.float32()), "loss": pa.float32()})
    with (
        pq.ParquetFile(source) as file,
        pq.ParquetWriter(target, schema, compression=codec, use_dictionary=False, write_statistics=plain) as writer,
    ):
        for table in tables(file, ahead=ahead):
            logits = table["logits"].combine_chunks()
            n_rows = len(logits)
            matrix = logits.flatten().to_numpy().reshape(n_rows, -1)
            probs, losses = score(matrix, table["label"].to_numpy())
            offsets = np.arange(0, probs.size + 1, probs.shape[1], dtype=np.int32)
            rows = pa.ListArray.from_arrays(pa.array(offsets), pa.array(probs.ravel()))
            columns = [table["id"], table["label"], rows, pa.array(losses)]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=n_rows)


def tables(file: Any, *, ahead: bool) -> Iterator[Any]:
    """Yield the row groups of ``file``; with ``ahead``, a thread reads the next one in the meantime."""
    if not ahead:
        yield from map(file.read_row_group, range(file.num_row_groups))
        return
    with ThreadPoolExecutor(1) as pool:
        coming = (pool.submit(file.read_row_group, group) for group in range(file.num_row_groups))
        now = next(coming, None)
        for following in chain(coming, [None]):
            if now is not None:
                yield now.result()
            now = following


def check(ours: str, theirs: str) -> None:
    """Exit unless both files hold the same ids, labels and losses, and the same probabilities in a sample of rows.

    The tolerance finds wrong results, not rounding: a plain float32 sum over 32,000 classes is off by 1e-4.
    """
    import numpy as np
    import pyarrow.parquet as pq

    a, b = pq.ParquetFile(ours), pq.ParquetFile(theirs)

    def first_rows(file: Any) -> Any:
        batch = next(file.iter_batches(64, columns=["probs"]), None)
        return np.zeros(0) if batch is None else batch["probs"].flatten().to_numpy()

    def last_rows(file: Any) -> Any:
        return file.read_row_group(file.num_row_groups - 1, columns=["probs"])["probs"][-1].as_py()

    flat = [file.read(columns=["id", "label", "loss"]) for file in (a, b)]
    wrong = [name for name in ("id", "label") if not flat[0][name].equals(flat[1][name])]
    if flat[0].num_rows == flat[1].num_rows:
        losses = [table["loss"].to_numpy() for table in flat]
        wrong += [] if np.allclose(losses[0], losses[1], rtol=1e-3, atol=1e-3) else ["loss"]
        same = all(np.allclose(rows(a), rows(b), rtol=1e-3, atol=1e-8) for rows in (first_rows, last_rows))
        wrong += [] if same else ["probs"]
    if wrong:
        sys.exit(f"{theirs} differs from {ours} in: {', '.join(wrong)}")


def check_sequences(ours: str, theirs: str) -> None:
    """Exit unless both files hold the same ids, and nearly the same losses and means."""
    import numpy as np
    import pyarrow.parquet as pq
    from pyarrow import compute as pc

    a, b = (pq.read_table(path, columns=["id", "losses", "mean_loss"]) for path in (ours, theirs))
    wrong = [] if a["id"].equals(b["id"]) else ["id"]
    if a.num_rows == b.num_rows:
        lengths = [pc.list_value_length(table["losses"]).cast("int64") for table in (a, b)]
        losses = [pc.list_flatten(table["losses"]).to_numpy() for table in (a, b)]
        same = lengths[0].equals(lengths[1]) and np.allclose(losses[0], losses[1], rtol=1e-3, atol=1e-3)
        wrong += [] if same else ["losses"]
        wrong += [] if np.allclose(a["mean_loss"], b["mean_loss"], rtol=1e-3) else ["mean_loss"]
    if wrong:
        sys.exit(f"{theirs} differs from {ours} in: {', '.join(wrong)}")


CHECKS = {"check": check, "check-sequences": check_sequences}


def main(arguments: list[str]) -> None:
    """Run the peer or the check that the arguments name."""
    name, *rest = arguments
    if name in CHECKS:
        CHECKS[name](*rest)
    else:
        source, target, codec, n_classes, *then = rest
        PEERS[name](source, target, codec, int(n_classes))
        for path in (target, os.path.dirname(target)) if then == ["sync"] else ():  # noqa: PTH120 - imports little
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1:])
