"""The command ``guide``: the list of topics, pages as Markdown and in a terminal, and unknown topics."""

from __future__ import annotations

import sys

import pytest
from click.shell_completion import ShellComplete

from batchmax import guide
from batchmax.cli.app import COMMANDS, group, main
from tests.support.documents import PAGES

TOPICS = [path.stem for path in PAGES]


@pytest.fixture
def run(capsys, monkeypatch):
    """Return a function that runs ``batchmax guide`` and returns exit code, stdout and stderr.

    If ``terminal`` is true, stdout is a terminal of 70 columns without colors.
    """

    def run_words(*words, terminal=False):
        monkeypatch.setenv("COLUMNS", "70")
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        code = main(["guide", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return run_words


def test_the_topics_are_listed_with_their_summaries(run):
    """Without a topic, each line has the name of a page and its first sentence."""
    code, out, err = run()
    assert (code, err) == (0, "")
    listed = [line.split(maxsplit=1) for line in out.splitlines()]
    assert listed == [[name, guide.summary(name)] for name in TOPICS]
    assert len(TOPICS) > 20


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_is_markdown_if_stdout_is_no_terminal(run, path):
    """In a pipe or a file, a page is the text of its file."""
    assert run(path.stem) == (0, path.read_text(), "")


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_is_formatted_in_a_terminal(run, topic):
    """In a terminal, headings and links have no Markdown, and comments of scripts are left out."""
    code, out, err = run(topic, terminal=True)
    assert (code, err) == (0, "")
    assert guide.page(topic).splitlines()[0].removeprefix("# ") in out
    assert not any(line.startswith(("# ", "## ", "```")) for line in out.splitlines())
    assert ".md)" not in out.replace("README.md)", "")
    assert "<!--" not in out


def test_a_link_to_a_page_is_the_command_that_shows_it(run):
    """In a terminal, a link to another page names the command that shows that page."""
    assert "](bad-rows.md)" in guide.page("labels")
    assert "batchmax guide bad-rows" in " ".join(run("labels", terminal=True)[1].split())


@pytest.mark.parametrize(
    ("topic", "nearest"),
    [
        ("format", "'formats'"),
        ("resum", "'resume'"),
        ("Sequence", "'sequences'"),
        ("s3", "'object-stores'"),
        ("seqences", "'sequences'"),
        ("formats.md", "'formats'"),
    ],
)
def test_an_unknown_topic_suggests_the_nearest(run, topic, nearest):
    """An unknown topic exits with 2; the error names topics of similar names, else pages that contain the word."""
    code, out, err = run(topic)
    assert (code, out) == (2, "")
    assert err.startswith(f"batchmax: error: the guide has no page {topic!r}; did you mean {nearest}")
    assert err.endswith("?; list the topics: batchmax guide\n")


@pytest.mark.parametrize("topic", ["xyzzy", "", " "])
def test_a_topic_like_no_other_suggests_nothing(run, topic):
    """A word that is in no page has no suggestion."""
    message = f"batchmax: error: the guide has no page {topic!r}; list the topics: batchmax guide\n"
    assert run(topic) == (2, "", message)


@pytest.mark.parametrize("name", [name for names in COMMANDS.values() for name in names if name != "guide"])
def test_the_help_of_a_command_names_its_page(capsys, name):
    """The last line of a command's help is the command that shows its page, and the page is about it."""
    main([name, "-h"])
    start, _, topic = capsys.readouterr().out.splitlines()[-1].rpartition(" ")
    assert start == "Guide: batchmax guide"
    assert topic in TOPICS
    assert f"batchmax {name}" in guide.page(topic)


def test_topics_are_completed():
    """Shell completion offers the topics that start with what was typed, with their summaries."""
    offered = ShellComplete(group, {}, "batchmax", "_BATCHMAX_COMPLETE").get_completions(["guide"], "s")
    assert [(one.value, one.help) for one in offered] == [
        (name, guide.summary(name)) for name in TOPICS if name.startswith("s")
    ]
