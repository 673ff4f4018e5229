"""How values and names are formatted for people."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmax.cli.render.formatting import duration, number, size
from batchmax.runtime.text import printable, quantity, shell_word


@given(st.text(st.characters(exclude_categories=[])))
def test_printable_text_is_one_harmless_line(text):
    """Control characters, line breaks and direction marks are escaped; printable text is unchanged."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (1234567, "1,234,567"),
        (0, "0"),
        (True, "yes"),
        (0.00669285092, "0.00669285"),
        (2.0473586e-9, "2.04736e-09"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (-0.0, "-0"),
        ("a\tb", "a\\tb"),
    ],
)
def test_number(value, text):
    """Floats have six significant digits, counts have separators, and a missing value is a dash."""
    assert number(value) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1023 * 1024, "1023 KiB"),
        (1024**2 - 1, "1 MiB"),
        (5 * 10**9, "4.66 GiB"),
        (2**60, "1024 PiB"),
    ],
)
def test_size(n_bytes, text):
    """Sizes are in a suitable binary unit."""
    assert size(n_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (float("inf"), "–"),
        (0.01234, "0.0123 s"),
        (3.0123, "3.01 s"),
        (99.94, "99.9 s"),
        (99.96, "1 min 40 s"),
        (3599.6, "1 h 00 min"),
        (7384, "2 h 03 min"),
    ],
)
def test_duration(seconds, text):
    """Durations have three significant digits below 100 seconds; longer ones are in minutes or hours."""
    assert duration(seconds) == text


@pytest.mark.parametrize("name", ["plain.parquet", "with space", "it's", "$(rm)", "a\nb", "tab\tand'quote", "ü\x1b["])
def test_shell_word_is_the_name_again_in_a_shell(name):
    """A quoted name is one printable word that bash reads as the name."""
    word = shell_word(name)
    assert word.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, text=True, check=True)
    assert done.stdout == name


def test_shell_word_leaves_plain_names_alone():
    """Names that need no quotes get none."""
    assert shell_word("a/b-c.parquet") == shlex.quote("a/b-c.parquet") == "a/b-c.parquet"


def test_quantities_have_the_right_number():
    """One is followed by the singular, and every other count by the plural, with separators."""
    assert quantity(1, "row") == "1 row"
    assert quantity(0, "row") == "0 rows"
    assert quantity(2, "class") == "2 classes"
    assert quantity(1234, "row is", "rows are") == "1,234 rows are"
    assert quantity(1, "row is", "rows are") == "1 row is"
