"""Writes logits with Spark, scores them, and reads the result with Spark.

It is a separate program because Spark starts a JVM.

``spark_round_trip.py FOLDER`` prints, as its last line, a JSON object with what Spark read from each scored file.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

import batchmax

folder = sys.argv[1]
spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false")
    .config("spark.sql.shuffle.partitions", "1")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .getOrCreate()
)
rng = np.random.default_rng(0)
logits = rng.standard_normal((30, 4)).astype(np.float32).astype(np.float64)
rows = [(number, [float(z) for z in row], number % 4) for number, row in enumerate(logits)]
arrays = spark.createDataFrame(rows, "id long, logits array<float>, label int")
vectors = spark.createDataFrame(
    [(number, Vectors.dense(z), label) for number, z, label in rows], ["id", "logits", "label"]
)

files = {}
for name, frame in (("array", arrays), ("vector", vectors)):
    frame.coalesce(2).write.parquet(f"{folder}/{name}")
    for out in (f"{folder}/{name}_scored.parquet", f"{folder}/{name}_scored"):
        batchmax.score(f"{folder}/{name}", out)
        back = spark.read.parquet(out).orderBy("id")
        got = back.collect()
        files[out.removeprefix(f"{folder}/")] = {
            "columns": back.columns,
            "types": [kind for _, kind in back.dtypes],
            "probs": [list(row["probs"]) for row in got],
            "loss": [row["loss"] for row in got],
        }
spark.stop()
sys.stdout.write(json.dumps({"logits": logits.tolist(), "files": files}) + "\n")
