"""The README and the pages of the guide, and the code blocks in them."""

from __future__ import annotations

import doctest
import re

from tests.support.paths import ROOT

README = ROOT / "README.md"
PAGES = sorted((ROOT / "batchmax" / "guide").glob("*.md"))
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks_of(language):
    """Return the code blocks in a language, of the README and the guide."""
    return [body for path in (README, *PAGES) for kind, body in FENCED.findall(path.read_text()) if kind == language]


def example_of(function):
    """Return the code of the examples in a docstring, with the sample data at an absolute path."""
    code = "".join(example.source for example in doctest.DocTestParser().get_examples(function.__doc__))
    return code.replace('"data/', f'"{ROOT}/data/')
