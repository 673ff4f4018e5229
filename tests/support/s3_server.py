"""Fixtures: an S3 server (moto), and a proxy in front of it through which all requests of a test go."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest

from batchmax.storage import object_store
from tests.support.failing_proxy import FailingProxy
from tests.support.processes import wait_until
from tests.support.requirements import package

SECRET = "a-very-secret-key"  # noqa: S105 - the server doesn't check credentials


@pytest.fixture(scope="module", name="server")
def s3_server():
    """Run the server and yield its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or listens(port), 0.1)
        assert process.poll() is None
        yield port
    finally:
        process.kill()
        process.wait()


def listens(port):
    """Return whether a server listens on a local port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(name="proxy")
def s3_proxy(server, monkeypatch, tmp_path):
    """Yield the proxy, with environment variables that point to it and an empty bucket."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    found = FailingProxy("127.0.0.1", server)
    given = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
    monkeypatch.setattr(object_store, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    object_store._system.cache_clear()
    client = package("boto3").client("s3", endpoint_url=f"http://127.0.0.1:{server}")
    client.create_bucket(Bucket="bucket")
    for key in keys(client):
        client.delete_object(Bucket="bucket", Key=key)
    found.client = client
    yield found
    object_store._system.cache_clear()
    found.close()


def keys(client):
    """Return the keys of all objects, except the folder markers that pyarrow leaves when it deletes objects."""
    found = [one["Key"] for one in client.list_objects_v2(Bucket="bucket").get("Contents", [])]
    return [key for key in found if not key.endswith("/")]


def put(proxy, path, key):
    proxy.client.upload_file(str(path), "bucket", key)


def get(proxy, key):
    return proxy.client.get_object(Bucket="bucket", Key=key)["Body"].read()


def without_run(key):
    """Return a key with the part's name in a local folder: without the random suffix."""
    return re.sub(r"(part-\d+)-[0-9a-f]{8}\.parquet$", r"\1.parquet", key)


def stored(proxy, folder):
    """Return the objects below a prefix, by their names in a local folder; check that one run made all parts."""
    found = {without_run(key): get(proxy, key) for key in keys(proxy.client) if key.startswith(f"{folder}/")}
    assert len({key[-16:-8] for key in keys(proxy.client) if key.startswith(f"{folder}/part-")}) == 1
    return {name.removeprefix(f"{folder}/"): data for name, data in found.items()}


def below(folder):
    """Return the files below a folder, by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
