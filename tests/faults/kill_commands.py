"""Words of the commands that tests kill."""

from __future__ import annotations

SCORE = ("score", "in", "-q", "--threads", "1", "--on-bad-row", "drop")
RESUME = ("--if-exists", "resume")
OVERWRITE = ("--if-exists", "overwrite")
NO_SYNC = ("--durability", "none")
GATE = ("--fail-if", "mean_loss > 0")
"""A condition that is true, so that the output is held."""
