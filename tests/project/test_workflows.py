"""The forge's workflows run what tox runs, and the hooks what the environment `lint` runs."""

from __future__ import annotations

import re
import subprocess
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

from shardcache.testing.servers import PACKAGES
from shardcache.testing.zookeeper import PACKAGE as ZOOKEEPER

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
CI = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
RELEASE = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tox():
    """Return the sections of tox.ini."""
    parser = ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini", encoding="utf-8")
    return parser


def test_ci_runs_each_environment_that_tox_runs(tox):
    """One machine each, and coverage besides."""
    names = re.findall(r"environment: (\S+) }", CI)
    default = [name.strip() for name in tox["tox"]["env_list"].split(",")]
    assert sorted(names) == sorted([*default, "coverage"])


def test_ci_runs_each_python_that_the_project_names():
    """Each in the environment that bears its name."""
    pairs = re.findall(r'python: "(3\.\d+)", environment: py(3\d+) }', CI)
    assert all(version.replace(".", "") == name for version, name in pairs)
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert [version for version, _ in pairs] == named


def test_ci_installs_the_servers_that_the_tests_start():
    """A server that is added to the tests is added there."""
    servers, ensemble = re.findall(r"apt-get install .*recommends (.*)", CI)
    assert set(servers.split()) == set(PACKAGES.values())
    assert ensemble == ZOOKEEPER


def test_a_tag_must_be_the_version():
    """Otherwise nothing is built; only the job that publishes gets a token, and none is stored."""
    assert 'test "$GITHUB_REF_NAME" = "v$(python -m hatchling version)"' in RELEASE
    assert RELEASE.index("hatchling version") < RELEASE.index("hatchling build")
    assert RELEASE.count("id-token: write") == 1
    assert RELEASE.index("publish:") < RELEASE.index("id-token: write")
    assert "secrets." not in RELEASE


def test_plugins_are_released_with_the_package():
    """All but the example; each has the version of the package."""
    (command,) = re.findall(r"projects=\$\((.*)\)\n", RELEASE)
    names = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    plugins = {path.parent for path in ROOT.glob("plugins/*/pyproject.toml")}
    released = {ROOT / name for name in names}
    assert {path.name for path in plugins - released} == {"shardcache-example"}
    for path in released:
        project = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert project["version"] == PROJECT["version"]


def test_hooks_are_local_and_run_what_lint_runs(tox):
    """Versions are stated in pyproject.toml alone."""
    assert re.findall(r"repo: (\S+)", HOOKS) == ["local"]
    assert "rev:" not in HOOKS
    entries = {entry.split()[0] for entry in re.findall(r"entry: (.*)", HOOKS)}
    linters = {line.split()[0] for line in tox["testenv:lint"]["commands"].split("\n") if line}
    assert entries == {*linters, "mypy"}
