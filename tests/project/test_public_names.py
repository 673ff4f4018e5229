"""Tests the public names: how they are imported, shown and documented. Their examples run as doctests."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import inspect
import pydoc
import re
import typing

import pytest

import batchmax
from tests.support.paths import ROOT
from tests.support.requirements import package

NAMES = [name for name in batchmax.__all__ if name != "__version__"]
ENGINES = ("ray", "spark")
WITH_EXAMPLES = [
    path
    for path in sorted((ROOT / "batchmax").rglob("*.py"))
    if ">>>" in path.read_text() and path.stem not in ENGINES  # test_ray_data.py and test_spark.py run theirs
]
NEEDS = {"batchmax.evaluation.calibrate": ["scipy"], "batchmax.reports.report": ["matplotlib", "scipy"]}
"""Optional packages that the examples of a module need."""


def function_of(name):
    """Return a public object; of an engine, its only public function."""
    return getattr(batchmax, name).score if name in ENGINES else getattr(batchmax, name)


def own_parameters(function):
    """Return the names of the parameters in the code of a function, without ``**given``."""
    code = inspect.unwrap(function).__code__
    return set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


def sections(found):
    """Return the sections of a docstring in NumPy style, by their titles; the text before them has the title ``""``."""
    pieces = re.split(r"^(\w[\w ]*)\n-{3,}$", inspect.getdoc(found), flags=re.MULTILINE)
    return dict(zip(["", *pieces[1::2]], pieces[::2], strict=True))


def test_public_names_are_listed_once():
    """``dir`` and ``help`` show every public name, and the table of names and the imports for editors have the same."""
    assert len(set(batchmax.__all__)) == len(batchmax.__all__)
    assert set(dir(batchmax)) == {*batchmax.__all__, *ENGINES}
    shown = pydoc.render_doc(batchmax, renderer=pydoc.plaintext)
    tree = ast.parse((ROOT / "batchmax" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imported = {f"{node.module}.{alias.asname}" for node in block.body for alias in node.names}
    declared = {f"batchmax.{module}.{name}" for name, module in batchmax._MODULE_OF.items()}
    assert imported == declared | {f"batchmax.{name}" for name in ENGINES}
    for name in NAMES:
        assert re.search(rf"\b{name}\b", shown), name
        assert getattr(batchmax, name).__name__ == name
        assert not name.startswith("_")


def test_an_unknown_name_is_an_attribute_error():
    """A name that doesn't exist raises ``AttributeError``, as in any module."""
    with pytest.raises(AttributeError, match="no attribute 'sofmax'"):
        _ = batchmax.sofmax


def test_results_and_callbacks_are_public():
    """The classes that annotations of public functions name are public, so that callers can import them."""
    for name in [*NAMES, *ENGINES]:
        found = function_of(name)
        if inspect.isfunction(found):
            annotations = " ".join(str(value) for value in inspect.get_annotations(found).values())
            for word in re.findall(
                r"\b(?:Progress|[A-Z]\w*(?:Summary|Options|ation|ison)|Report|DecisionRule)\b", annotations
            ):
                assert word in batchmax.__all__, (name, word)


@pytest.mark.parametrize(
    "name",
    [
        *("score", "scan", "score_batch", "convert", "evaluate", "calibrate", "compare", "worst_rows"),
        *("report", "decide", "score_options", *ENGINES),
    ],
)
def test_signatures_name_the_options(name):
    """The signature that ``help`` shows has each option once, with its default and a type, and no ``**given``."""
    found = function_of(name)
    shown = inspect.signature(found).parameters
    own = own_parameters(found)
    kind = typing.get_type_hints(found).get("options", batchmax.ScoreOptions)
    fields = inspect.signature(next(iter(typing.get_args(kind)), kind)).parameters
    assert shown.keys() - {"temperature"} == {*own, *fields} - {
        "rule",
        "calibrated_activation",
        "calibrated_classes",
        "scale",
        "bias",
    }
    assert ("temperature" in shown) == ("beta" in fields)
    for option in shown.keys() - {*own, "temperature"}:
        assert shown[option].default == fields[option].default
        assert shown[option].annotation
    assert str(shown.get("outputs", "")) in {"", "outputs: 'str | Iterable[str] | None' = None"}
    assert "on_bad_row" in pydoc.render_doc(found, renderer=pydoc.plaintext)


def test_shown_options_are_accepted():
    """Every option of a signature can be given, with the default that is shown."""
    shown = inspect.signature(batchmax.score_options).parameters.values()
    given = {one.name: one.default for one in shown if one.name != "beta"}
    assert batchmax.score_options(**given) == batchmax.score_options()


@pytest.mark.parametrize("name", [*NAMES, *ENGINES])
def test_public_names_are_documented(name):
    """Every public function and class has a summary and an example; a function describes its parameters and errors."""
    found = function_of(name)
    parts = sections(found)
    assert re.match(r"[A-Z`][^\n]*\.(\s|$)", parts[""]), parts[""]
    assert ">>>" in parts["Examples"]
    if inspect.isfunction(found):
        assert parts["Raises"].strip()
        described = re.findall(r"^(\w[\w, ]*)$", parts["Parameters"], re.MULTILINE)
        described = {word for line in described for word in line.split(", ")}
        assert own_parameters(found) <= described


def test_experimental_parts_say_so():
    """The parts that the guide lists as experimental, and no others, have the word in their docstrings."""
    page = (ROOT / "batchmax" / "guide" / "python.md").read_text()
    (line,) = re.findall(r"^- (.*) are experimental: ", page, re.MULTILINE)
    listed = {name.removeprefix("batchmax.") for name in re.findall(r"`([\w.]+)`", line)}
    assert listed == {name for name in [*NAMES, *ENGINES] if "Experimental" in inspect.getdoc(function_of(name))}
    assert all("Experimental" in getattr(batchmax, name).__doc__ for name in listed)


def test_the_reference_has_every_public_name():
    """The pages of the API reference list each public name once, and the engines."""
    pages = "".join(path.read_text() for path in (ROOT / "scripts" / "site" / "reference").glob("*.rst"))
    assert sorted(re.findall(r"^\.\. auto(?:function|class|exception):: (.*)$", pages, re.MULTILINE)) == sorted(NAMES)
    for name in ENGINES:
        assert f".. automodule:: batchmax.{name}\n   :members: score\n" in pages


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT / "batchmax")))
def test_examples_run(path, tmp_path):
    """The examples of a module's docstrings print what is shown, each in a folder of its own with the sample data."""
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for name in NEEDS.get(module.__name__, ()):
        package(name)
    found = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert found
    for test in found:
        report, folder = [], tmp_path / test.name
        folder.mkdir()
        (folder / "data").symlink_to(ROOT / "data")
        with contextlib.chdir(folder):
            result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
        assert not result.failed, "".join(report)
