"""Fixtures that make jobs split small inputs."""

from __future__ import annotations

import functools

import pytest

from batchmax.jobs import output_job
from batchmax.sources import chunks
from batchmax.sources.parts import plan_parts


@pytest.fixture
def small_chunks(monkeypatch):
    """Limit row groups of the output to 4 KiB of logits, and chunks to 1 KiB."""
    monkeypatch.setattr(chunks, "MAX_ROW_GROUP_BYTES", 4096)
    monkeypatch.setattr(chunks, "MAX_CHUNK_BYTES", 1024)


@pytest.fixture
def small_parts(monkeypatch):
    """Limit parts to 100 bytes of logits."""
    monkeypatch.setattr(output_job, "plan_parts", functools.partial(plan_parts, part_bytes=100))
