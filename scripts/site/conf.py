"""Configuration of the documentation site, which ``scripts/docs`` builds with Sphinx.

Sphinx, because docstrings are in its dialect of reStructuredText, and because it shows signatures as ``help`` does. The
order of the guide is that of the README, and the address of the repository that of ``pyproject.toml``.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from sphinx.util.inspect import TypeAliasForwardRef

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
OWNER, NAME = REPOSITORY.split("/")[-2:]

project = PROJECT["name"]
version = release = PROJECT["version"]
author = PROJECT["authors"][0]["name"]
copyright = author  # noqa: A001 - the name is Sphinx's

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["data"]
nitpicky = True
# Types in signatures and descriptions aren't links; references in the text are.
nitpick_ignore_regex = [("py:(class|obj|exc)", ".*")]

myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Types whose names say more than what they stand for.
autodoc_type_aliases = {name: name for name in ("Array", "ArrayLike", "IfExists", "InputKind", "Layout")}
TypeAliasForwardRef.__repr__ = lambda self: self.name
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = False

html_theme = "furo"
html_title = project
html_baseurl = f"https://{OWNER}.github.io/{NAME}/"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "footer_icons": [{"name": "GitHub", "url": REPOSITORY, "html": "GitHub", "class": ""}],
}


def adapt(_: Any, page: str, content: list[str]) -> None:
    """Make links of a Markdown page lead to the site, and add the navigation to the first page."""
    text = content[0].replace(f"]({REPOSITORY}/raw/main/data/", "](/data/")
    if page == "index":
        text = text.replace(f"]({REPOSITORY}/blob/main/batchmax/guide/", "](guide/") + navigation(text)
    content[0] = text


def navigation(readme: str) -> str:
    """Return the tables of contents: the groups of the README's list of the guide, the reference, and the project."""
    guide = readme.split("\n## Guide\n", 1)[1].split("\n\n- ", 1)[1].split("\n\n", 1)[0]
    groups = {}
    for group in guide.split("\n- "):
        caption, _, links = group.partition(":")
        groups[caption] = [f"guide/{name}" for name in re.findall(r"guide/([\w-]+)\.md", links)]
    groups["API reference"] = [
        f"reference/{name}" for name in ("arrays", "files", "options", "results", "errors", "progress", "engines")
    ]
    groups["Project"] = [f"Repository <{REPOSITORY}>", f"Changelog <{PROJECT['urls']['Changelog']}>"]
    return "".join(
        "\n".join(["\n", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])
        for caption, pages in groups.items()
    )


def without_fields(_: Any, what: str, *rest: Any) -> tuple[str, None] | None:
    """Return an empty signature for a class, because its docstring describes the fields that matter."""
    del rest
    return ("", None) if what in {"class", "exception"} else None


def list_attributes(_: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Make a section "Attributes" a definition list, because napoleon takes one name for each description."""
    del what, name, found, options
    if "Attributes" not in lines:
        return
    start = lines.index("Attributes")
    lines[start : start + 2] = [".. rubric:: Attributes", ""]
    for number in range(start + 2, len(lines)):
        if number + 1 < len(lines) and re.fullmatch("-{3,}", lines[number + 1]):
            break
        if re.fullmatch(r"\w+(, \w+)*", lines[number]):
            lines[number] = ", ".join(f"``{one}``" for one in lines[number].split(", "))


def setup(app: Any) -> None:
    """Register the functions that adapt pages and docstrings."""
    app.connect("source-read", adapt)
    app.connect("autodoc-process-signature", without_fields)
    app.connect("autodoc-process-docstring", list_attributes, priority=400)  # before napoleon
