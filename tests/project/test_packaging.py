"""What is published: the wheel, the source distribution, and the readme that an index shows."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest

import lowest
import shardcache

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NAME = f"shardcache-{PROJECT['project']['version']}"
LINK = re.compile(r"]\(([^()\s]+)\)")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build both from the checkout, without the network; return the directory."""
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def wheel(built):
    """Return the files of the wheel with their contents."""
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def sdist(built):
    """Return the files of the source distribution, by their names in the checkout."""
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        return {str(PurePosixPath(name).relative_to(NAME)) for name in archive.getnames()}


@pytest.fixture(scope="module")
def metadata(wheel):
    """Return the metadata of the wheel."""
    return Parser().parsestr(wheel[f"{NAME}.dist-info/METADATA"].decode())


def sources(*below):
    """Return the Python files of the checkout below some directories."""
    return {
        path.relative_to(ROOT).as_posix() for each in below for path in (ROOT / each).rglob("*.py")
    }


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    """With its marker for type checkers and its licence; no tests, no load tests, no caches."""
    info = f"{NAME}.dist-info"
    assert {name for name in wheel if not name.startswith(f"{info}/")} == {
        *sources("shardcache"),
        "shardcache/py.typed",
    }
    assert {name.removeprefix(f"{info}/") for name in wheel if name.startswith(info)} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }
    assert wheel[f"{info}/entry_points.txt"].decode().split() == [
        "[console_scripts]",
        "shardcache",
        "=",
        "shardcache.cli:main",
    ]


def is_cached(path):
    """Return whether a file is a cache, such as mypy leaves below each plugin that it checks."""
    return any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def test_the_source_distribution_holds_what_its_own_tests_need(sdist):
    """A user who unpacks it can run tox: plugins, load tests and what CI runs are there."""
    assert sources("shardcache", "tests", "loadtests", "plugins", "docs") <= sdist
    for needed in (
        ".ci/run",
        ".github/workflows/ci.yml",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "hatch_build.py",
        "pyproject.toml",
        "tox.ini",
    ):
        assert needed in sdist
    for path in ("plugins", "docs", "loadtests"):
        files = [each.relative_to(ROOT) for each in (ROOT / path).rglob("*") if each.is_file()]
        assert {each.as_posix() for each in files if not is_cached(each)} <= sdist


def listed(*options):
    """Return the files of the checkout that git lists, of those that are there."""
    command = ["git", "ls-files", "-z", *options]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in names.split("\0") if name and (ROOT / name).exists()}


def test_the_source_distribution_holds_all_that_is_in_the_repository(sdist):
    """And nothing that git is told to ignore."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    kept = listed()
    assert kept <= sdist
    assert sdist - kept - listed("--others", "--exclude-standard") <= {"PKG-INFO"}


def test_what_is_run_and_tested_is_in_the_source_distribution(sdist):
    """Each path that tox.ini or pytest's settings name."""
    told = re.findall(
        r"\b(?:plugins|loadtests|tests)/[\w./-]+\.py", (ROOT / "tox.ini").read_text("utf-8")
    )
    assert len(told) > 3
    assert set(told) <= sdist
    for path in PROJECT["tool"]["pytest"]["ini_options"]["testpaths"]:
        assert any(name.startswith(f"{path}/") for name in sdist)


def test_the_metadata_says_what_the_project_says(metadata):
    """The version, the extras and the Python it needs; a licence by its name."""
    project = PROJECT["project"]
    assert metadata["Version"] == project["version"] == shardcache.__version__
    assert metadata["Requires-Python"] == project["requires-python"]
    assert metadata["License-Expression"] == "MIT"
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    assert "Typing :: Typed" in metadata.get_all("Classifier")


def test_no_link_of_the_published_readme_leads_nowhere(metadata):
    """A path of the repository is none on an index's page: it is absolute there, or no link."""
    page = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "One key space over many cache nodes" in page
    for target in LINK.findall(page):
        assert target.startswith(("https://", "#")), target
    assert "a node is stopped for ten seconds" in page.lower()


def test_each_link_of_the_readme_leads_to_a_file():
    """In the repository itself."""
    targets = LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert target.startswith(("https://", "#")) or (ROOT / target).exists(), target


def test_the_project_s_addresses_stand_in_one_place():
    """They are in `[project.urls]`; no page or text of the package names another repository."""
    urls = PROJECT["project"]["urls"]
    assert all(address.startswith("https://") for address in urls.values())
    plain = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for address in urls.values():
        assert plain.count(address) == 1


def test_no_text_says_to_install_a_name_that_is_not_published():
    """The owner of that name would own the machines of its readers; a path is meant."""
    directories = ("shardcache", "docs", "loadtests", "plugins", "tests", ".ci", ".github")
    paths = [path for each in directories for path in (ROOT / each).rglob("*") if path.is_file()]
    paths += [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "tox.ini"]
    told = {
        line
        for path in paths
        if path.suffix not in (".pyc", ".svg", ".png") and path != Path(__file__)
        for line in re.findall(r"pip3? install[^\n`&]*", path.read_text("utf-8", "replace"))
    }
    assert len(told) > 5
    assert [line for line in told if re.search(r"[\s'\"]shardcache\b", line)] == []


def test_the_lowest_versions_are_those_that_the_project_states():
    """One constraint for each dependency, which `tox -e lowest` installs."""
    stated = list(lowest.lowest())
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    assert len(stated) == len(project["dependencies"]) + sum(map(len, extras))
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in stated)
