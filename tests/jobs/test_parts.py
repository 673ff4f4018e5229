"""Tests parts made separately, by shards, from a plan or on a Ray cluster, against the output of one run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchmax
from batchmax.cli.app import main
from batchmax.errors import DataError, OutputError, UsageError
from batchmax.jobs import ray_executor
from batchmax.jobs.open_outputs import parse_shard
from batchmax.jobs.plan import Plan, run_part
from batchmax.options.score_options import score_options
from batchmax.runtime.progress import Progress
from batchmax.sinks.commit.staging import PartFolder
from batchmax.sources.parquet_source import ParquetSource
from batchmax.sources.parts import plan_parts
from tests.support.processes import HANGS, wait_until

N_FILES, N_ROWS = 5, 300
WITH_REJECTS = {"on_bad_row": "drop", "rejects": "rejects", "outputs": "probs,loss,sample,status", "seed": 3}

HOLD_SHARED = """
import time
from batchmax.sinks.commit.staging import StagingDirectory
staging = StagingDirectory("out")
staging.open_shared()
staging.share()
print("ready", flush=True)
time.sleep(3600)
"""


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Write five files, one with another codec and three with a bad row each, and change to their parent folder."""
    random = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    for number in range(N_FILES):
        logits = random.normal(size=(N_ROWS, 12)).astype(np.float32)
        if number % 2 == 0:
            logits[7, 2] = np.nan
        columns = {"id": np.arange(N_ROWS), "logits": list(logits), "label": random.integers(0, 12, N_ROWS)}
        codec = "zstd" if number == 3 else "snappy"
        pq.write_table(pa.table(columns), tmp_path / "in" / f"{number}.parquet", compression=codec, row_group_size=90)
    monkeypatch.chdir(tmp_path)
    return "in"


def contents(*folders):
    """Return the contents of every file below the folders, by folder number and relative path."""
    found = {}
    for number, folder in enumerate(folders):
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                found[number, str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.fixture
def whole(inputs):
    """Return the files of an output and of its rejects that one run makes."""
    batchmax.score(inputs, "whole", **WITH_REJECTS | {"rejects": "whole_rejects"})
    return contents("whole", "whole_rejects")


# Shards


@pytest.mark.parametrize("shards", [["0/2", "1/2"], ["1/3", "1/3", "0/3"], ["2/3", "0/7", "6/7"], []])
def test_shards_and_a_last_run_make_what_one_run_makes(inputs, whole, shards):
    """A final run reuses the parts of any shards, makes the rest, and publishes what one run would.

    Cases: all shards, some, one twice, shards of different counts, none.
    """
    rows = 0
    for shard in shards:
        summary = batchmax.score(inputs, "out", shard=shard, **WITH_REJECTS)
        assert "publish the output" in summary.notes[-1]
        rows += summary.n_rows
        assert not os.path.lexists("out")
    if shards == ["0/2", "1/2"]:
        assert rows == N_FILES * N_ROWS
    batchmax.score(inputs, "out", if_exists="resume", **WITH_REJECTS)
    assert contents("out", "rejects") == whole
    assert not list(Path().glob(".*"))


def test_shards_at_the_same_time(inputs, whole):
    """Shards that run at the same time share the staging directory without conflicts."""
    words = ["--on-bad-row", "drop", "--rejects", "rejects", "--outputs", "probs,loss,sample,status", "--seed", "3"]
    command = [sys.executable, "-m", "batchmax", "score", inputs, "-o", "out", *words, "-q", "--shard"]
    running = [subprocess.Popen([*command, f"{number}/4"]) for number in range(4)]
    assert [one.wait(HANGS) for one in running] == [0] * 4
    batchmax.score(inputs, "out", if_exists="resume", **WITH_REJECTS)
    assert contents("out", "rejects") == whole


@pytest.mark.parametrize(
    ("shard", "message"),
    [("8/8", "shards run 0/8 … 7/8"), ("x", "no shard"), ("1/0", "no shard"), ("-1/3", "no shard"), ("1", "no shard")],
)
def test_shards_that_there_are_not(shard, message):
    """The error for an invalid shard names the valid ones."""
    with pytest.raises(UsageError, match=message):
        parse_shard(shard)
    assert parse_shard("7/8") == (7, 8)


def test_what_cannot_be_cut_into_shards(inputs):
    """Jobs with an output file or a stream as input have no shards."""
    with pytest.raises(UsageError, match="a file is made by one run"):
        batchmax.score(inputs, "out.parquet", shard="0/2")
    with pytest.raises(UsageError, match="a stream cannot be cut"):
        batchmax.score(pq.read_table(f"{inputs}/1.parquet"), "out", shard="0/2")


def test_a_shard_of_another_job_begins_anew(inputs, whole):
    """A shard of another job discards what is staged, unless a shard is running; then it's refused.

    A run that publishes is refused as well while a shard is running.
    """
    batchmax.score(inputs, "out", shard="0/2", **WITH_REJECTS, temperature=2.0)
    held = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HOLD_SHARED,
        ],
        stdout=subprocess.PIPE,
    )
    try:
        held.stdout.readline()
        with pytest.raises(OutputError, match="other shards are at another job here: temperature is"):
            batchmax.score(inputs, "out", shard="0/2", **WITH_REJECTS)
        with pytest.raises(OutputError, match="another run is making this output"):
            batchmax.score(inputs, "out", if_exists="resume", **WITH_REJECTS)
    finally:
        held.kill()
        held.wait()
        held.stdout.close()
    batchmax.score(inputs, "out", shard="1/2", **WITH_REJECTS)
    batchmax.score(inputs, "out", if_exists="resume", **WITH_REJECTS)
    assert contents("out", "rejects") == whole


def test_a_part_that_was_lost_is_made_again(inputs, whole):
    """A part that the journal records but that has no file is made again, with a warning."""
    batchmax.score(inputs, "out", shard="0/1", **WITH_REJECTS)
    Path(".out.batchmax/output/part-00003.parquet").unlink()
    with pytest.warns(RuntimeWarning, match="it is damaged"):
        batchmax.score(inputs, "out", if_exists="resume", **WITH_REJECTS)
    assert contents("out", "rejects") == whole


# The plan


def plan_of(inputs, **given):
    return Plan.of(ParquetSource([inputs], score_options(**given)))


def test_a_part_is_a_function_of_the_plan(inputs, whole, tmp_path):
    """A part made from the plan's JSON has the file that a run writes.

    Made again, from a plan with only this part and with other threads, it is the same.
    """
    plan = Plan.from_json(json.dumps(plan_of(inputs, **WITH_REJECTS).as_dict()))
    assert plan == plan_of(inputs, **WITH_REJECTS)
    for name in ("w", "r"):
        (tmp_path / name).mkdir()
        PartFolder(tmp_path / name).create()
    for part in plan.parts:
        alone = Plan.of_header(plan.header(), [vars(plan.inputs[part.file])], [vars(part) | {"file": 0}])
        made = [
            run_part(one, part.number, PartFolder(tmp_path / "w"), PartFolder(tmp_path / "r"), threads=threads)
            for one, threads in ((plan, 1), (alone, 2))
        ]
        assert made[0] == made[1]
        assert (made[0].rows, made[0].name) == (N_ROWS, part.name)
        assert (tmp_path / "w" / "output" / part.name).read_bytes() == whole[0, part.name]
    assert (tmp_path / "r" / "output" / "part-00000.parquet").read_bytes() == whole[1, "part-00000.parquet"]


def test_an_input_that_changed_since(inputs, tmp_path):
    """A part isn't made if its input has changed since the plan was made."""
    plan = plan_of(inputs)
    table = pq.read_table(f"{inputs}/1.parquet")
    pq.write_table(table.slice(1), f"{inputs}/1.parquet")
    with pytest.raises(DataError, match=r"1\.parquet: the file has changed since the job was planned"):
        run_part(plan, 1, PartFolder(tmp_path))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": "0.0.1"}', "nonsense"])
def test_what_is_no_plan(text):
    """Text that isn't a plan of this version is refused with a one-line error."""
    with pytest.raises(DataError, match="the plan: "):
        Plan.from_json(text)


def test_a_dry_run_prints_the_plan(inputs, capsys):
    """A dry run with ``--json`` prints the plan: the inputs, and the row groups and rows of each part."""
    assert main(["score", inputs, "-o", "out", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert [one["path"] for one in plan["inputs"]] == [f"{inputs}/{number}.parquet" for number in range(N_FILES)]
    assert [(one["file"], one["first_group"], one["end_group"], one["rows"], one["name"]) for one in plan["parts"]] == [
        (number, 0, 4, N_ROWS, f"part-{number:05d}.parquet") for number in range(N_FILES)
    ]


def test_a_plan_of_many_parts_is_made_and_kept_quickly(inputs):
    """A plan of 100,000 parts is made, serialized and parsed in seconds.

    The header that each task gets takes a few kilobytes.
    """
    few = plan_of(inputs)
    begun = time.process_time()
    parts = plan_parts([[1] * 100] * 1000, 4, 4)
    plan = Plan(**vars(few) | {"parts": tuple(parts), "inputs": few.inputs * 200})
    again = Plan.from_json(json.dumps(plan.as_dict()))
    assert again == plan
    assert len(parts) == 100_000
    assert time.process_time() - begun < 60
    assert len(plan.header()) < 20_000


# Ray


def on_ray(*words, new_session=False, **environment):
    command = [sys.executable, "-m", "batchmax", "score", *words, "--engine", "ray"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        start_new_session=new_session,
    )


@pytest.mark.ray
def test_a_cluster_makes_what_one_run_makes(inputs, whole):
    """Output and rejects from Ray equal those of one run, and parts that a shard has made are reused."""
    batchmax.score(inputs, "out", shard="1/3", **WITH_REJECTS)
    words = ["--on-bad-row", "drop", "--rejects", "rejects", "--outputs", "probs,loss,sample,status", "--seed", "3"]
    run = on_ray(inputs, "-o", "out", *words, "--json", "--if-exists", "resume")
    out, err = run.communicate(timeout=HANGS)
    assert run.returncode == 0, err
    assert json.loads(out)["n_rows"] == N_FILES * N_ROWS
    assert "resuming after 600 completed rows" in err
    assert contents("out", "rejects") == whole


@pytest.mark.ray
def test_a_bad_row_on_a_cluster(inputs):
    """A bad row ends a run on Ray with the error of a local run, and publishes nothing."""
    run = on_ray(inputs, "-o", "out")
    out, err = run.communicate(timeout=HANGS)
    assert (run.returncode, out) == (1, "")
    assert "row 7 (row group 0): NaN at class 2" in err
    assert "Traceback" not in err
    assert not os.path.lexists("out")


@pytest.mark.ray
def test_workers_that_are_killed(tmp_path, monkeypatch):
    """If Ray workers are killed in the middle of parts, the run succeeds, and no row is missing or duplicated."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    logits = np.random.default_rng(0).normal(size=(400_000, 40)).astype(np.float32)
    rows = pa.FixedSizeListArray.from_arrays(logits.ravel(), 40)
    table = pa.table({"id": np.arange(len(logits)), "logits": rows})
    for number in range(4):
        pq.write_table(table, f"in/{number}.parquet", row_group_size=20_000, compression="none")
    run = on_ray("in", "-o", "out", "--json", "--outputs", "probs,log_probs,entropy")
    killed = 0
    while run.poll() is None and killed < 4:
        time.sleep(0.4)
        if Path(".out.batchmax").is_dir() and any(Path(".out.batchmax").glob("tries-*")):
            found = subprocess.run(["pgrep", "-f", "ray::Map"], capture_output=True, text=True, check=False)
            for word in found.stdout.split()[:1]:
                os.kill(int(word), signal.SIGKILL)
                killed += 1
    out, err = run.communicate(timeout=HANGS)
    assert run.returncode == 0, err
    assert killed >= 1
    assert json.loads(out)["n_rows"] == 4 * len(logits)
    ids = np.sort(pq.read_table("out", columns=["id"])["id"].to_numpy())
    np.testing.assert_array_equal(ids, np.repeat(np.arange(len(logits)), 4))
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "_SUCCESS",
        "_batchmax.parquet",
        *(f"part-0000{n}.parquet" for n in range(4)),
    ]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("number", "to_group", "code"),
    [(signal.SIGTERM, False, 143), (signal.SIGINT, True, 130), (signal.SIGTERM, True, 143)],
)
def test_a_signal_ends_a_cluster(number, to_group, code, tmp_path, monkeypatch):
    """A signal ends a run on Ray with one line and the signal's exit code.

    Completed parts are kept, and no process of Ray is left.
    """
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    logits = np.random.default_rng(0).normal(size=(40_000, 500)).astype(np.float32)
    table = pa.table({"logits": pa.FixedSizeListArray.from_arrays(logits.ravel(), 500)})
    for part in range(30):
        pq.write_table(table, f"in/{part}.parquet", row_group_size=10_000, compression="none", use_dictionary=False)
    run = on_ray("in", "-o", "out", "-q", new_session=True)
    journal = Path(".out.batchmax/journal")
    wait_until(lambda: run.poll() is not None or (journal.exists() and journal.read_bytes().count(b'"part"') > 1))
    assert run.poll() is None
    (os.killpg if to_group else os.kill)(run.pid, number)
    _, err = run.communicate(timeout=HANGS)
    assert run.returncode == code
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert "completed work is kept; continue with --if-exists resume" in lines[0]
    assert journal.read_bytes().count(b'"part"') > 1
    wait_until(lambda: not _alive_in_session(run.pid), pause=0.2)


def _alive_in_session(session):
    """Return the processes of a session that haven't ended."""
    found = subprocess.run(["ps", "-s", str(session), "-o", "stat=,args="], capture_output=True, text=True, check=False)
    return [line for line in found.stdout.splitlines() if not line.startswith("Z")]


@pytest.mark.ray
def test_more_cpus_than_a_node_has(inputs):
    """A task that needs more CPUs than any node has is an error that names both numbers, instead of an endless wait."""
    run = on_ray(inputs, "-o", "out", "--threads", "4000")
    out, err = run.communicate(timeout=HANGS)
    assert (run.returncode, out) == (2, "")
    assert err.count("\n") == 1, err
    assert re.search(r"--threads: a task needs 4000 CPUs, and the largest node of the Ray cluster has \d+", err)
    assert not os.path.lexists("out")


def test_a_node_that_will_join(monkeypatch):
    """If the cluster can still start a large enough node, warnings say how long the job has waited for it.

    Otherwise, the job is refused.
    """
    sizes, lines = iter([2.0, 2.0, 2.0, 4.0]), []
    monkeypatch.setattr(ray_executor, "largest_node", lambda: next(sizes))
    monkeypatch.setattr(ray_executor, "_largest_possible_node", lambda: 8.0)
    monkeypatch.setattr(ray_executor, "WAIT_SECONDS", 0.01)
    progress = Progress()
    progress.warn = lines.append
    assert ray_executor.check_cpus(4, where="--threads")
    with ray_executor._warning_while_waiting(4, progress):
        wait_until(lambda: len(lines) == 2)
    assert len(lines) == 2
    assert all("for a node with 4 CPUs to join the Ray cluster; the largest has 2" in line for line in lines)
    monkeypatch.setattr(ray_executor, "largest_node", lambda: 2.0)
    with pytest.raises(UsageError, match="a task needs 9 CPUs, and the largest node of the Ray cluster has 2"):
        ray_executor.check_cpus(9, where="--threads")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_handlers_that_ray_sets(number):
    """Ray's signal handlers are removed, and an exit that one of them raised becomes the signal again."""
    heard = []
    before = signal.signal(number, lambda *_: heard.append(number))
    try:
        with ray_executor._own_signal_handlers():
            signal.signal(number, lambda signum, _: sys.exit(signum))
            if number == signal.SIGTERM:
                signal.raise_signal(number)
        signal.raise_signal(number)
    finally:
        signal.signal(number, before)
    assert heard == [number] * (2 if number == signal.SIGTERM else 1)


def test_what_a_cluster_cannot_do(inputs, monkeypatch):
    """``engine='ray'`` refuses an output file, a stream and a shard; without Ray, the error says how to install it."""
    monkeypatch.setattr(ray_executor, "find_spec", lambda _: object())
    with pytest.raises(UsageError, match="a file is made by one process"):
        batchmax.score(inputs, "out.parquet", engine="ray")
    with pytest.raises(UsageError, match="a stream can't be divided"):
        batchmax.score(pq.read_table(f"{inputs}/1.parquet"), "out", engine="ray")
    with pytest.raises(UsageError, match="a shard is made by one process"):
        batchmax.score(inputs, "out", engine="ray", shard="0/2")
    with pytest.raises(UsageError, match=r"--fail-if: an output at a URI can't be held"):
        batchmax.score(inputs, "memory://out", engine="ray", fail_if="bad_rows > 0")
    monkeypatch.setattr(ray_executor, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=re.escape("--engine: Ray is not installed; pip install '.[ray]'")):
        batchmax.score(inputs, "out", engine="ray")


def test_a_worker_that_does_not_see_the_folder(tmp_path):
    """A worker that can't see the driver's staging directory raises an error.

    A part is given up on after 20 workers died while making it.
    """
    with pytest.raises(OutputError, match="can't access the folder"):
        ray_executor._check_access(str(tmp_path), "token")
    (tmp_path / "probe").write_text("token")
    ray_executor._check_access(str(tmp_path), "token")
    for _ in range(ray_executor.WORKER_DEATHS):
        ray_executor._count_try(tmp_path / "tries-3")
    with pytest.raises(OutputError, match="20 workers died while they made this part"):
        ray_executor._count_try(tmp_path / "tries-3")
