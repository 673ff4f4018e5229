"""Hypothesis profiles: no deadlines, because a first call compiles."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("default run", deadline=None, max_examples=60)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default run"))
