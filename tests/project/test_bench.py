"""The benchmark: its measurements, the programs that it compares with, and the results in README and guide."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.paths import ROOT
from tests.support.processes import HANGS
from tests.support.requirements import package

sys.path.append(str(ROOT / "scripts"))

from benchmarks import assembly, bars, peers, suites, tables
from benchmarks.processes import Contender, Failed, measure, run_rounds
from benchmarks.results import Results, file_name, measurement, read_all, spread, these_versions, this_machine

BENCH = ROOT / "scripts" / "bench.py"
PYTHON = sys.executable


def some_results():
    """Return results with every kind of measurement, and one failed run."""
    found = Results(
        {"cpu": "a processor", "llvm": "a1", "vectors": "AVX2", "cores": 2, "memory": 16, "system": "x"},
        {"python": "3", "numba": "1"},
    )
    for scale in (1, 4):
        for case in ("k10", "k1000", "k32k"):
            for output in ("snappy", "none"):
                for who, seconds in {"batchmax": 2.0, "polars": 9.0, "torch": 11.0, "torch-ahead": 10.0}.items():
                    one = Contender(who, [])
                    entry = measurement(one, suite="jobs", case=case, scale=scale, output=output)
                    entry |= {"seconds": spread([seconds, seconds + 1, seconds]), "peak": spread([3e8])}
                    found.measurements[f"jobs/{case}/{scale}/{output}/{who}"] = entry
    late = Contender("duckdb", [], failure="not done after 300 s")
    entry = measurement(late, suite="jobs", case="k32k", scale=4, output="snappy")
    found.measurements["jobs/k32k/4/snappy/duckdb"] = entry
    for who, seconds in {"batchmax": 2.0, "polars": 9.0, "torch": 11.0, "torch-ahead": 10.0}.items():
        entry = measurement(Contender(who, []), suite="sequences")
        found.measurements[f"sequences/{who}"] = entry | {"seconds": spread([seconds]), "peak": spread([3e8])}
    for threads in (1, 2):
        for width in suites.WIDTHS:
            for who, seconds in {"batchmax": 0.1, "torch-out": 0.3, "copy": 0.01}.items():
                where = {"suite": "kernels", "threads": threads, "n_classes": width, "bytes": 10**9, "who": who}
                entry = measurement(None, **where, seconds=spread([seconds / threads]))
                found.measurements[f"kernels/{threads}/{width}/{who}"] = entry
    for size in suites.SIZES:
        entry = measurement(Contender("batchmax", []), suite="sizes", gigabytes=size)
        entry |= {"seconds": spread([size]), "peak": spread([5e8 + 1e7 * size])}
        found.measurements[f"sizes/{size:g}"] = entry
    return found


# The documents


@pytest.mark.parametrize(
    ("path", "section"),
    [("README.md", tables.headline), ("batchmax/guide/performance.md", tables.section), ("data/bench/README.md", None)],
)
def test_documents_show_the_results(path, section):
    """The documents have what ``bench.py --readme`` makes of the stored results and plots."""
    folder = ROOT / "data" / "bench"
    results = read_all(folder)
    text = (ROOT / path).read_text()
    if section is None:
        assert text == tables.everything(results)
        return
    plots = [name for name in tables.PLOTS if (folder / name).exists()]
    assert text.partition(tables.BEGIN + "\n")[2].partition(tables.END)[0] == section(results, plots)


def test_a_section_replaces_the_one_before(tmp_path):
    """Only the text between the marks is replaced, however often; missing marks raise ValueError."""
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    for _ in range(2):
        tables.replace_section(readme, "new\n")
        assert readme.read_text() == f"before\n{tables.BEGIN}\nnew\n{tables.END}\nafter\n"
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="has no"):
        tables.replace_section(readme, "new\n")


def test_tables_show_medians_and_failures():
    """A cell holds the median time and peak memory, a dash if nothing was measured, and a word if a run failed."""
    table = tables.jobs([some_results()], 4, "snappy", ["k10", "k32k", "digits"]).splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in table}
    assert cells["**batchmax**"] == ["2.00 s, 0.30 GB", "2.00 s, 0.30 GB", "–"]
    assert cells["DuckDB, SQL"] == ["–", "too long", "–"]
    assert "SciPy and pyarrow" not in cells


def test_sequences_are_shown_where_they_were_measured():
    """The section has a table of sequences with every contender, or doesn't mention them if they weren't measured."""
    results = some_results()
    assert "| Polars, streaming | 9.00 s, 0.30 GB |" in tables.sequences(results)
    assert tables.sequences(results) in tables.section([results], [])
    assert "sequences" not in tables.section([], [])


def test_cpus_are_shown_side_by_side(tmp_path):
    """Each CPU has its file and its columns of jobs, which name it; the one with the most measurements is the first."""
    one, other = some_results(), some_results()
    other.machine |= {"cpu": "Another  CPU @ 2.5", "llvm": "b2", "vectors": "AVX-512"}
    other.measurements = {key: entry for key, entry in other.measurements.items() if "/k32k/" not in key}
    assert [file_name(results.machine) for results in (one, other)] == [
        "a1-a-processor.json",
        "b2-another-cpu-2-5.json",
    ]
    for results in (one, other):
        results.write(tmp_path / file_name(results.machine))
    found = read_all(tmp_path)
    assert [results.label for results in found] == ["a processor (a1, AVX2)", "Another  CPU @ 2.5 (b2, AVX-512)"]
    table = tables.jobs(found, 4, "snappy", ["k1000", "k32k"]).splitlines()
    assert table[0].startswith("|  | 1000 classes, a processor (a1, AVX2) | 1000 classes, Another")
    assert table[2] == "| **batchmax** | 2.00 s, 0.30 GB | 2.00 s, 0.30 GB | 2.00 s, 0.30 GB | – |"
    assert all(results.label in tables.section(found, []) for results in found)


def test_the_page_of_all_figures_holds_every_measurement():
    """The page of all results has a row for each measurement, with the spread next to the median."""
    results = some_results()
    page = tables.everything([results])
    for key in results.measurements:
        suite, _, rest = key.partition("/")
        assert suite == "kernels" or f"| {rest} |" in page
    assert "| k10/4/snappy/polars | 9.00 (9.00 – 10.0) |" in page
    assert "| **batchmax**, softmax and loss, `out=` | 20.0 | 20.0 | 20.0 | 20.0 | 20.0 |" in page


def test_figures_are_read_without_effort():
    """Numbers have three significant digits and no exponent; a missing one is a dash."""
    assert [tables.number(value) for value in (None, 0.0, 0.01234, 1.2, 12.34, 123.4, 12345.0)] == [
        "–",
        "0.00",
        "0.0123",
        "1.20",
        "12.3",
        "123",
        "12345",
    ]


def test_plots_are_small_and_steady(tmp_path):
    """Full results give every plot, no results none; the same results give the same bytes, less than 60 kB a plot."""
    package("matplotlib")
    from benchmarks import plots

    assert plots.draw(Results(), tmp_path) == []
    assert plots.draw(some_results(), tmp_path) == list(tables.PLOTS)
    first = {name: (tmp_path / name).read_bytes() for name in tables.PLOTS}
    assert all(3_000 < len(content) < 60_000 for content in first.values())
    plots.draw(some_results(), tmp_path)
    assert all((tmp_path / name).read_bytes() == content for name, content in first.items())


# Targets


def test_bars_compare_the_right_figures():
    """Targets compare medians at four times the rows with the fastest peer.

    Memory is in GB and kernel speed in GB/s.
    """
    results = some_results()
    lines = {what: (value, verdict) for what, value, _, verdict in (bar.line(results) for bar in bars.bars())}
    assert lines["k1000, 4 × rows: Polars' time / ours"] == ("4.50", "holds")
    assert lines["k32k, 4 × rows: Polars' time / ours"] == ("4.50", "MISSED")
    assert lines["k1000, 1 × rows: Polars' time / ours"] == ("4.50", "")
    assert lines["k1000, 4 × rows: the best PyTorch script's time / ours"] == ("5.00", "holds")
    assert lines["sequences, loss only: the fastest peer's time / ours"] == ("4.50", "holds")
    assert lines["kernel, K = 10: GB/s of ours / PyTorch softmax with out="] == ("3.00", "MISSED")
    assert lines["peak memory on 10 GB, in GB"] == ("0.600", "holds")
    assert lines["peak memory, on 10 GB / on 1 GB"] == ("1.18", "MISSED")
    assert lines["`batchmax --help`, seconds"] == ("–", "not measured")


def test_a_failed_run_is_no_figure():
    """The rounds before a failure give no median, and the target isn't evaluated."""
    results = some_results()
    results.measurements["jobs/k1000/4/snappy/batchmax"]["failure"] = "exit 1: x"
    assert results.median("jobs/k1000/4/snappy/batchmax") is None
    assert bars.bars()[0].line(results)[3] == "not measured"


def test_results_survive_a_round_trip(tmp_path):
    """Results that are written are read back unchanged; a missing file gives empty results."""
    path = tmp_path / "new" / "results.json"
    assert Results.read(path) == Results()
    results = some_results()
    results.write(path)
    assert Results.read(path) == results


# Processes


def test_a_process_is_measured():
    """Peak memory, CPU time and wall time are those of the process.

    The peak is at least the memory at the start of the process, which is its parent's.
    """
    busy = (
        "import time; b = bytearray(b'x') * 600_000_000; t = time.process_time()\nwhile time.process_time() < t + .3: 0"
    )
    run = measure([PYTHON, "-c", busy], HANGS)
    assert run.peak > 600e6
    assert run.cpu >= 0.3
    assert run.seconds >= 0.3
    idle = measure([PYTHON, "-c", "pass"], HANGS)
    assert idle.peak <= run.peak
    assert idle.cpu < run.cpu


def test_a_failure_says_why():
    """A failure has the exit code and the last line of stderr, or the timeout."""
    with pytest.raises(Failed, match="exit 3: two"):
        measure(["sh", "-c", "echo one >&2; echo two >&2; exit 3"], HANGS)
    with pytest.raises(Failed, match=r"not done after 0\.2 s"):
        measure(["sh", "-c", "sleep 60 & sleep 60"], 0.2)


def test_rounds_are_interleaved_and_failures_left_out(tmp_path):
    """Contenders run in turn; one that fails or writes wrong results isn't run again, and the others continue."""
    log = tmp_path / "log"

    def contender(name, then="true", **how):
        return Contender(name, ["sh", "-c", f"echo {name} >>'{log}'; {then}"], **how)

    def wrong():
        message = "differs"
        raise Failed(message)

    target = tmp_path / "out"
    said = []
    a, b, c = (
        contender("a"),
        contender("b", "exit 1"),
        contender("c", f"touch '{target}'", target=target, inspect=wrong),
    )
    run_rounds([a, b, c], 3, HANGS, said.append)
    assert log.read_text().split() == ["a", "b", "c", "a", "a"]
    assert len(a.runs) == 3
    assert (b.runs, b.failure) == ([], "exit 1: ")
    assert (c.runs, c.failure) == ([], "differs")
    assert len(said) == 5
    assert measurement(b, suite="x")["failure"] == "exit 1: "


def test_an_output_is_gone_before_the_next_run(tmp_path):
    """The target is deleted before each run, and the source stays unchanged.

    A run that doesn't write its target fails.
    """
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("x" * 1000)
    fresh = Contender("copy", ["sh", "-c", f"test ! -e '{target}' && cp '{source}' '{target}'"], source, target)
    run_rounds([fresh], 3, HANGS, lambda _: None)
    assert len(fresh.runs) == 3
    assert fresh.output_bytes == 1000
    assert not target.exists()
    assert source.read_text() == "x" * 1000
    empty = Contender("nothing", ["true"], source, target)
    run_rounds([empty], 1, HANGS, lambda _: None)
    assert "No such file" in empty.failure


# Peers


@pytest.fixture
def small(tmp_path):
    """Return a file of logits in three row groups, its labels, and its probabilities and losses in float64."""
    rng = np.random.default_rng(5)
    n_rows, n_classes = 301, 7
    logits = (5 * rng.standard_normal((n_rows, n_classes))).astype(np.float32)
    labels = rng.integers(0, n_classes, n_rows)
    offsets = pa.array(np.arange(0, logits.size + 1, n_classes, dtype=np.int32))
    rows = pa.ListArray.from_arrays(offsets, pa.array(logits.ravel()))
    path = tmp_path / "small.parquet"
    table = pa.table({"id": pa.array(np.arange(n_rows)), "logits": rows, "label": pa.array(labels)})
    pq.write_table(table, path, row_group_size=120)
    exponentials = np.exp(logits.astype(np.float64))
    probs = exponentials / exponentials.sum(axis=1, keepdims=True)
    return path, labels, probs, -np.log(probs[np.arange(n_rows), labels])


@pytest.mark.parametrize("codec", ["snappy", "none"])
@pytest.mark.parametrize("name", [name for name in suites.WRITERS if name != "pyarrow-copy"])
def test_a_peer_does_the_same_job(name, codec, small, tmp_path):
    """A peer writes ids, labels, float32 probabilities and losses in input order with the requested codec."""
    package(name.partition("-")[0])
    source, labels, probs, losses = small
    target = tmp_path / "out.parquet"
    peers.main([name, str(source), str(target), codec, "7"])
    table = pq.read_table(target)
    assert table.column_names == ["id", "label", "probs", "loss"]
    assert table["id"].to_pylist() == list(range(len(labels)))
    assert table["label"].to_pylist() == labels.tolist()
    assert table.schema.field("probs").type.value_type == pa.float32()
    assert table.schema.field("loss").type == pa.float32()
    np.testing.assert_allclose(np.array(table["probs"].to_pylist()), probs, rtol=1e-4)
    np.testing.assert_allclose(table["loss"].to_numpy(), losses, rtol=1e-4, atol=1e-5)
    chunk = pq.ParquetFile(target).metadata.row_group(0).column(2)
    assert chunk.compression == {"snappy": "SNAPPY", "none": "UNCOMPRESSED"}[codec]


@pytest.mark.parametrize("name", ["pyarrow-copy", *suites.READERS])
def test_the_peers_without_arithmetic_run(name, small, tmp_path):
    """The copy writes the logits in place of probabilities; readers write nothing."""
    source, *_ = small
    target = tmp_path / "out.parquet"
    peers.main([name, str(source), str(target), "snappy", "7"])
    assert target.exists() == (name == "pyarrow-copy")
    if target.exists():
        assert pq.read_table(target)["probs"].to_pylist() == pq.read_table(source)["logits"].to_pylist()


@pytest.mark.parametrize("column", ["id", "label", "probs", "loss", None])
def test_a_wrong_result_is_seen(column, tmp_path):
    """The check names the column in which two outputs differ, and prints nothing if they agree."""
    table = {"id": [1, 2], "label": [0, 1], "probs": [[0.5, 0.5], [0.1, 0.9]], "loss": [0.7, 0.1]}
    wrong = table | ({column: [[0.5, 0.5], [0.2, 0.8]] if column == "probs" else [1, 3]} if column else {})
    paths = [tmp_path / "ours.parquet", tmp_path / "theirs.parquet"]
    for path, columns in zip(paths, (table, wrong), strict=True):
        pq.write_table(pa.table(columns), path)
    if column is None:
        peers.main(["check", *map(str, paths)])
        return
    with pytest.raises(SystemExit, match=f"in: .*{column}"):
        peers.main(["check", *map(str, paths)])


def test_missing_rows_are_seen(tmp_path):
    """The check rejects an output with fewer rows or none."""
    table = pa.table({"id": [1, 2], "label": [0, 1], "probs": [[0.5, 0.5], [0.1, 0.9]], "loss": [0.7, 0.1]})
    ours = tmp_path / "ours.parquet"
    pq.write_table(table, ours)
    for n_rows in (0, 1):
        theirs = tmp_path / f"{n_rows}.parquet"
        pq.write_table(table.slice(0, n_rows), theirs)
        with pytest.raises(SystemExit, match="id"):
            peers.main(["check", str(ours), str(theirs)])


@pytest.mark.parametrize("codec", ["snappy", "none"])
@pytest.mark.parametrize("name", suites.SEQUENCE_WRITERS)
def test_a_peer_scores_sequences(name, codec, tmp_path):
    """A peer writes each sequence's token losses and their mean, over row groups of sequences of different lengths."""
    package(name.partition("-")[0])
    rng = np.random.default_rng(6)
    lengths, n_classes = [3, 1, 5, 2], 7
    sequences = [(5 * rng.standard_normal((n, n_classes))).astype(np.float32) for n in lengths]
    labels = [rng.integers(0, n_classes, n) for n in lengths]
    nested = pa.array([list(map(list, rows)) for rows in sequences], pa.list_(pa.list_(pa.float32())))
    table = pa.table({"id": range(4), "logits": nested, "labels": pa.array(labels, pa.list_(pa.int64()))})
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(table, source, row_group_size=2)
    peers.main([f"{name}-sequences", str(source), str(target), codec, str(n_classes)])
    found = pq.read_table(target)
    assert found["id"].to_pylist() == [0, 1, 2, 3]
    for rows, of_rows, losses, mean in zip(sequences, labels, found["losses"], found["mean_loss"], strict=True):
        wide = rows.astype(np.float64)
        expected = np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(wide)), of_rows]
        np.testing.assert_allclose(losses.as_py(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mean.as_py(), expected.mean(), rtol=1e-4)


@pytest.mark.parametrize("column", ["id", "losses", "mean_loss", "lengths", None])
def test_a_wrong_sequence_is_seen(column, tmp_path):
    """The check names the column that differs, also if lengths of sequences do, and prints nothing if outputs agree."""
    table = {"id": [1, 2], "losses": [[0.7, 0.1], [0.3]], "mean_loss": [0.4, 0.3]}
    changes = {"losses": [[0.7, 0.2], [0.3]], "lengths": [[0.7], [0.1, 0.3]], "id": [2, 1], "mean_loss": [0.4, 0.4]}
    named = "losses" if column == "lengths" else column
    paths = [str(tmp_path / "ours.parquet"), str(tmp_path / "theirs.parquet")]
    for path, columns in zip(paths, (table, table | ({named: changes[column]} if column else {})), strict=True):
        pq.write_table(pa.table(columns), path)
    if column is None:
        peers.main(["check-sequences", *paths])
        return
    with pytest.raises(SystemExit, match=f"in: {named}$"):
        peers.main(["check-sequences", *paths])


# Whole runs


def bench(*arguments):
    """Run the script and return the completed process."""
    return subprocess.run([PYTHON, BENCH, *arguments], capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_a_quick_run_measures_everything(tmp_path):
    """Every suite stores its measurements without failures, and the next run adds to them.

    The stored results of the repository don't change.
    """
    stored = sorted((ROOT / "data" / "bench").glob("*.json"))
    before = [kept.read_bytes() for kept in stored]
    quick = ["--quick", "--folder", str(tmp_path), "--outputs", "snappy,loss"]
    done = bench(*quick, "--peers", "cp,polars,duckdb,pyarrow-read")
    path = tmp_path / "quick" / "quick-results" / file_name(this_machine())
    found = json.loads(path.read_text())["measurements"]
    assert not [key for key, entry in found.items() if "failure" in entry], done.stderr
    wanted = ["jobs/k1000/1/snappy/batchmax", "jobs/k1000/1/snappy/cp", "jobs/k1000/1/snappy/cp-out"]
    wanted += [f"jobs/k1000/1/snappy/{name}" for name in ("batchmax-none", "cp-sync", "cp-out-sync")]
    for peer in suites.installed(["polars", "duckdb"], print):
        wanted += [f"jobs/k1000/1/snappy/{peer}", f"jobs/k1000/1/snappy/{peer}-sync"]
    wanted += ["jobs/k1000/1/loss/batchmax", "jobs/k1000/1/loss/pyarrow-read"]
    wanted += ["sequences/batchmax", "sequences/pyarrow-read"]
    wanted += [f"sequences/{peer}" for peer in suites.installed(["polars"], print)]
    wanted += ["kernels/1/1000/batchmax", "kernels/1/1000/copy", "sizes/0.001"]
    wanted += [f"startup/{name}" for name in tables.STARTS]
    assert set(wanted) <= set(found)
    assert "jobs/k1000/1/snappy/scipy" not in found
    assert "Polars' time / ours" in done.stdout
    kept_inputs = {one.name for one in (tmp_path / "quick").iterdir()} - {"quick-results"}
    assert kept_inputs == {"k1000.parquet", "sequences.parquet"}

    bench(*quick, "--only", "jobs", "--cases", "digits", "--peers", "cp")
    more = json.loads(path.read_text())["measurements"]
    assert {key: more[key] for key in found} == found
    assert {key.split("/")[1] for key in set(more) - set(found)} == {"digits"}
    assert [kept.read_bytes() for kept in stored] == before


@pytest.mark.parametrize("what", ["machine", "versions"])
def test_figures_of_two_machines_are_not_mixed(what, tmp_path):
    """Results of another processor or other versions are an error: nothing is added, and they stay unchanged."""
    path = tmp_path / file_name(this_machine())
    results = some_results()
    results.machine, results.versions = this_machine(), these_versions()
    getattr(results, what)["numba"] = "another"
    results.write(path)
    before = path.read_bytes()
    command = [PYTHON, BENCH, "--quick", "--folder", tmp_path, "--results", tmp_path, "--only", "startup"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"figures of other {what}" in done.stderr
    assert path.read_bytes() == before


def test_the_hottest_loops_are_vector_code():
    """The table of ``--assembly`` has the loops of a kernel for another CPU: vector code without inner branches."""
    done = bench("--assembly", "neoverse-n1", "--quick")
    head, *rows = done.stdout.splitlines()
    assert head.split("  ")[0] == "kernel"
    assert rows[0].split()[:2] == ["softmax_few_float32", "neoverse-n1"]
    assert re.search(r" \d\d+ 4s +0 +0$", rows[0]), rows


def test_loops_are_found_in_assembly():
    """A loop's instructions, FMAs by register, inner branches and calls are counted; its own branch isn't inner."""
    text = """
kernel:
	movq	%rdi, %rax
.LBB0_1:
	vfmadd231ps	(%rsi), %zmm1, %zmm2
	vfmadd213ss	%xmm1, %xmm2, %xmm3
	testb	$1, %al
	je	.LBB0_3
	callq	*%rax
.LBB0_3:
	decq	%rax
	jne	.LBB0_1
	retq
"""
    (blocks,) = assembly.functions(text)
    assert assembly.loops(blocks) == [
        assembly.Loop(instructions=7, fmas={"zmm": 1, "scalar": 1}, single_fmas=2, branches=1, calls=1)
    ]


@pytest.mark.parametrize("wrong", [["--only", "nothing"], ["--rounds", "0"], ["--scale", "0"], ["--quick", "--readme"]])
def test_wrong_arguments_are_refused(wrong):
    """Invalid arguments exit with 2 and an error line, and nothing is measured."""
    done = subprocess.run([PYTHON, BENCH, *wrong], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error" in done.stderr.splitlines()[-1]
