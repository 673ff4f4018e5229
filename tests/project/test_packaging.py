"""Tests package metadata, links in documents and CI workflows against the repository.

``scripts/package`` checks the distributions that it builds.
"""

from __future__ import annotations

import itertools
import os
import re
import tomllib

import pytest

from batchmax import guide
from tests.support.documents import PAGES, README
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
SCRIPT = re.compile(r"\./scripts/([\w.-]+)((?: +(?!\.)[^\s`|;&()]+)*)")


def name_of(path):
    return path.name


# The metadata


def test_every_url_is_in_the_repository():
    """The metadata have URLs for repository, documentation, changelog and issues, all below one address."""
    assert PROJECT["urls"].keys() >= {"Repository", "Documentation", "Changelog", "Issues"}
    for url in PROJECT["urls"].values():
        assert re.match(rf"{re.escape(REPOSITORY)}($|[/#])", url), url


def test_the_metadata_name_systems_and_topics():
    """The classifiers name Linux and macOS but not Windows, and a topic; keywords are sorted and unique."""
    systems = {entry for entry in PROJECT["classifiers"] if entry.startswith("Operating System")}
    assert systems == {"Operating System :: MacOS", "Operating System :: POSIX :: Linux"}
    assert any(entry.startswith("Topic :: ") for entry in PROJECT["classifiers"])
    assert PROJECT["keywords"] == sorted(set(PROJECT["keywords"]))


# The documents


def test_links_of_the_readme_are_absolute():
    """Images and links of the README are absolute: the package index shows it without the repository."""
    links = LINK.findall(README.read_text())
    assert any(image for image, _ in links)
    for _, target in links:
        assert target.startswith("https://"), target


def test_the_wheel_has_the_pages_of_the_guide():
    """The wheel has the whole package, from which nothing is excluded, and the pages are in the package."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["batchmax"]}
    assert [path.stem for path in PAGES] == guide.topics()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_into_the_repository_lead_to_files(path):
    """Links to the repository use its address and lead to existing files; images link to the raw file."""
    for image, target in LINK.findall(path.read_text()):
        if "batchmax" not in target.partition("#")[0] or not target.startswith("https://"):
            continue
        assert target.startswith(f"{REPOSITORY}/"), target
        view, _, rest = target.removeprefix(f"{REPOSITORY}/").partition("/main/")
        assert view in ({"raw"} if image else {"blob", "tree", "issues", "security/advisories/new"}), target
        if view in {"raw", "blob", "tree"}:
            name = rest.partition("#")[0]
            assert name, target
            assert (ROOT / name).is_dir() if view == "tree" else (ROOT / name).is_file(), target


def test_the_address_is_declared_once():
    """Code, scripts and workflows don't contain the repository's address, so that moving it changes few files."""
    for folder in ("batchmax", "scripts", ".github", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path not in PAGES:
                assert REPOSITORY.encode() not in path.read_bytes(), path


# The workflows


@pytest.mark.parametrize("path", [*DOCUMENTS, *WORKFLOWS, ROOT / ".ci" / "run"], ids=name_of)
def test_scripts_that_are_named_exist(path):
    """Scripts named in documents and workflows exist and are executable, and they or pytest have the options shown."""
    ours = "".join(conftest.read_text() for conftest in (ROOT / "tests").rglob("conftest.py"))
    for name, arguments in SCRIPT.findall(path.read_text()):
        script = ROOT / "scripts" / name
        assert os.access(script, os.X_OK), f"{path.name}: {name}"
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", arguments):
            if name != "batchmax":  # its options are compared with the README elsewhere
                assert option in script.read_text() + ours, f"{path.name}: {name} {option}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_every_step_runs_a_script(path):
    """A workflow step is an action or one call of a script, so that it can be run on any machine."""
    commands = re.findall(r"^ *(?:- )?run: (.*)$", path.read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        assert re.fullmatch(r"\./scripts/[a-z]+( [^;&|`]+)?", command), command


def test_actions_are_pinned_to_commits():
    """Actions are pinned to a full commit with the version in a comment, and to the same commit everywhere."""
    uses = [line for path in WORKFLOWS for line in re.findall(r"\buses: (.*)", path.read_text())]
    assert uses
    found = {}
    for line in uses:
        pinned = re.fullmatch(r"([\w-]+/[\w-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line)
        assert pinned, line
        name, *commit = pinned.groups()
        assert found.setdefault(name, commit) == commit, line


def test_workflows_use_the_first_and_the_last_python():
    """Workflows use the oldest and the newest Python that the classifiers declare."""
    declared = [re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", entry) for entry in PROJECT["classifiers"]]
    minors = sorted(int(match[1]) for match in declared if match)
    first, last = (f"3.{minor}" for minor in (minors[0], minors[-1]))
    assert PROJECT["requires-python"] == f">={first}"
    matrices = [found for path in WORKFLOWS for found in re.findall(r"\bpython: (\[.*\])", path.read_text())]
    assert matrices
    assert set(matrices) == {f'["{first}", "{last}"]'}
    fixed = [found for path in WORKFLOWS for found in re.findall(r'python-version: "(.*)"', path.read_text())]
    assert set(fixed) <= {first, last}


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_every_job_has_a_limit(path):
    """Each job has a timeout and its own permissions; the workflow has no permissions and limits concurrent runs."""
    head, _, jobs = path.read_text().partition("\njobs:\n")
    assert "\npermissions: {}\n" in head
    assert "\nconcurrency:\n" in head
    starts = [match.start() for match in re.finditer(r"^  [\w-]+:$", jobs, re.MULTILINE)]
    assert starts
    for start, end in itertools.pairwise([*starts, len(jobs)]):
        job = jobs[start:end]
        assert re.search(r"^    timeout-minutes: \d+$", job, re.MULTILINE), job
        assert re.search(r"^    permissions:$", job, re.MULTILINE), job


def test_only_publish_jobs_publish():
    """Only the publish jobs of the release and of the site can request an identity token.

    They have environments of their own and no checkout.
    """
    texts = {path.name: path.read_text() for path in WORKFLOWS}
    publishing = {name for name, text in texts.items() if "id-token: write" in text}
    assert publishing == {"release.yml", "docs.yml"}
    for name, environment, script in (
        ("release.yml", "environment: release", "package"),
        ("docs.yml", "name: github-pages", "docs"),
    ):
        build, _, publish = texts[name].partition("\n  publish:\n")
        assert "id-token" not in build
        assert environment in publish
        assert "actions/checkout" not in publish
        assert f"./scripts/{script}" in build
