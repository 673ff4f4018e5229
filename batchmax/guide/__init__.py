"""The user guide: Markdown pages in this folder, one for each topic.

A page starts with a title and a paragraph of one sentence that says what it is about. Knows files; doesn't know
terminals or commands.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files

MOST_SUGGESTED = 3
"""Maximum number of topics that are suggested for an unknown one."""


def topics() -> list[str]:
    """Return the topics in alphabetical order."""
    return sorted(page.name.removesuffix(".md") for page in files(__package__).iterdir() if page.name.endswith(".md"))


def page(topic: str) -> str:
    """Return the Markdown text of a page.

    Raises
    ------
    FileNotFoundError
        There is no such topic.
    """
    return files(__package__).joinpath(f"{topic}.md").read_text(encoding="utf-8")


def summary(topic: str) -> str:
    """Return the first paragraph of a page as plain text on one line."""
    _, first, *_ = page(topic).split("\n\n", 2)
    return " ".join(first.replace("`", "").split())


def similar_topics(text: str) -> list[str]:
    """Return the topics whose names resemble a text; if none does, those whose pages contain it most often."""
    text = text.strip().lower()
    if not text:
        return []
    names = topics()
    similar = [name for name in names if text in name or name in text]
    similar += [name for name in get_close_matches(text, names, n=MOST_SUGGESTED) if name not in similar]
    if not similar:
        counts = {name: page(name).lower().count(text) for name in names}
        similar = sorted((name for name in names if counts[name]), key=lambda name: -counts[name])
    return similar[:MOST_SUGGESTED]
