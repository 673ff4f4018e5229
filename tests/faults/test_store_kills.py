"""Runs on an object store are killed before each of their requests, and a run with ``resume`` finishes the output.

At any time, a reader that follows the manifest sees the whole old output or the whole new one. The resuming run leaves
the objects of a run that wasn't killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from batchmax.errors import DataError
from batchmax.storage.input_files import find_files
from batchmax.storage.manifest import MANIFEST, read_manifest
from tests.faults.kill_commands import GATE, OVERWRITE, RESUME, SCORE
from tests.support.processes import HANGS
from tests.support.requirements import package
from tests.support.s3_server import SECRET, get, keys, s3_proxy, s3_server, without_run  # noqa: F401 - fixtures

package("moto")

OUTPUTS = {"file": ("o.parquet", ""), "file and rejects": ("o.parquet", "r.parquet"), "folder": ("o", ""),
           "folder and rejects": ("o", "r")}  # fmt: skip
SCENARIOS = [f"{kind}, {before}" for kind in OUTPUTS for before in ("new", "over another")]
GATES = ", held back", ", held back, then released", ", released"
SCENARIOS += [f"{one}{gate}" for one in SCENARIOS[-2:] for gate in GATES]
SCENARIOS += [f"file and rejects, over another{gate}" for gate in GATES[1:]]
IN_DEFAULT_RUN = {"folder and rejects, over another": 29}
"""Scenarios of the default run, and the step between the requests at which it kills."""


def objects(proxy):
    """Return all objects by their names in a file system; of manifests, the parts, summary and job."""
    found = {}
    for key in keys(proxy.client):
        data = get(proxy, key)
        if key.endswith(MANIFEST):
            manifest = read_manifest(data)
            parts = {without_run(name): size for name, size in manifest.parts.items()}
            data = json.dumps([parts, manifest.summary, manifest.job])
            assert all(f"{key.removesuffix(manifest.path)}{name}" in keys(proxy.client) for name in manifest.parts)
        assert without_run(key) not in found, "parts of two runs"
        found[without_run(key)] = data
    return found


def as_read(proxy, out):
    """Return the files of an output as a reader that follows the manifest sees them, or None if there is no output."""
    if not out.endswith(".parquet") and not any(
        key.startswith(f"{out}/") and key.endswith(MANIFEST) for key in keys(proxy.client)
    ):
        return None
    try:
        files = find_files([f"s3://bucket/{out}"])
    except DataError:
        return None
    return [get(proxy, file.removeprefix("s3://bucket/")) for file in files]


def staged(folder):
    """Return the files of runs in the folder of staging directories."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.faults(keep=lambda name: name in IN_DEFAULT_RUN)
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_before_every_request(tmp_path, inputs, forks, proxy, table, everything, name):
    """Readers see the whole old output or the whole new one, and the run that resumes completes the new one."""
    kind, before, *gate = name.split(", ")
    out, rejects = OUTPUTS[kind]
    score = [word for word in SCORE if word != "in"]
    words = [
        *score,
        "in/0.parquet",
        "in/1.parquet",
        "-o",
        f"s3://bucket/{out}",
        *(["--rejects", f"s3://bucket/{rejects}"] if rejects else []),
    ]
    first = [*words, *(OVERWRITE if before == "over another" else ()), *(GATE if gate else ())]
    killed = [*words, *RESUME] if gate == ["released"] else first
    resumes = [*words, *RESUME, *(GATE if gate == ["held back"] else ())]
    staging = tmp_path / "staging"
    environment = {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "TMPDIR": str(staging),
    }
    pid = tmp_path / "pid"

    def run(line):
        question = {"words": line, "folder": str(inputs.parent), "environment": environment, "pid": str(pid)}
        return forks.ask(question, seconds=HANGS)

    def restart():
        for key in keys(proxy.client):
            proxy.client.delete_object(Bucket="bucket", Key=key)
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(left, staging)
        for key, data in old.items():
            proxy.client.put_object(Bucket="bucket", Key=key, Body=data)

    def kill(number):
        if number == at:
            os.kill(int(pid.read_text(encoding="ascii")), signal.SIGKILL)

    old = {}
    left = tmp_path / "left"
    left.mkdir()
    restart()
    if before == "over another":
        assert run([*words, "--temperature", "2"])["code"] == 0
    if gate == ["released"]:
        assert run(first)["code"] == 4
    old = {key: get(proxy, key) for key in keys(proxy.client)}
    shutil.copytree(staging, left, dirs_exist_ok=True)
    old_files = as_read(proxy, out)
    proxy.seen.clear()
    whole = run(killed)
    requests = len(proxy.seen)
    assert whole["code"] in {0, 4}, whole["err"]
    whole = run(resumes)
    assert whole["code"] in {0, 4}, whole["err"]
    want, new_files = objects(proxy), as_read(proxy, out)
    # A held output that may replace another keeps its journal.
    want_staged = staged(staging)
    proxy.before = kill
    step = 1 if everything else IN_DEFAULT_RUN[name]
    for number in range(1, requests + 1, step):
        at = None
        restart()
        proxy.seen.clear()
        at = number
        assert run(killed)["code"] == -9
        at = None
        row = table.rows["SIGKILL before request number 1, 2, … to an object store", name]
        row.runs += 1
        row.exits["-9"] += 1
        found = as_read(proxy, out)
        assert found in (old_files, new_files), number
        row.found["none" if found is None else "old" if found == old_files else "new"] += 1
        again = run(resumes)
        if before == "over another" and "another job, and complete" in again["err"]:
            # The killed run hadn't recorded yet that it may replace the existing output.
            assert not list(Path(staging).rglob("journal"))
            assert run(first)["code"] in {0, 4}
            again = run(resumes)
        assert again["code"] == whole["code"], (number, again["err"])
        assert objects(proxy) == want, number
        assert staged(staging) == want_staged, number
        row.resumed += 1
