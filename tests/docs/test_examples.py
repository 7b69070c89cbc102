"""The examples on the pages run as shown."""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from shardcache import Node, Topology
from shardcache.decorators import Defaults
from shardcache.plugin.manager import Plugins

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```(?P<language>\w*)")
BLOCK = re.compile(r"^```(?P<language>pycon|python)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
# Pages may use them; without them, and the plugins for them, their programs are skipped.
OPTIONAL = (
    "celery",
    "dogpile",
    "fastapi",
    "flask_caching",
    "gevent",
    "shardcache_fastapi",
    "shardcache_flask",
    "shardcache_opentelemetry",
    "shardcache_prometheus",
)

# For the tests of a page: how busy this machine is must not decide whether a property holds.
PATIENT = """
import hypothesis

slow = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=slow)
hypothesis.settings.load_profile("patient")
"""


def examples(page: str) -> str:
    """Return the lines of a page's Python blocks, all others blank, so that line numbers hold."""
    kept = []
    language = ""
    for line in page.splitlines():
        fence = FENCE.match(line)
        if fence:
            language = "" if language else fence["language"] or "text"
        kept.append(line if language in {"pycon", "python"} and not fence else "")
    return "\n".join(kept) + "\n"


@pytest.fixture(autouse=True)
def _own_defaults(monkeypatch: pytest.MonkeyPatch):
    """Each page is a separate program: its functions share no name with another's."""
    monkeypatch.setattr("shardcache.decorators._defaults", Defaults())
    monkeypatch.setattr("shardcache.plugin.manager._loaded", {})  # some pages add plugins


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run_as_shown(page: Path, monkeypatch: pytest.MonkeyPatch):
    """The reader gets what a page shows at the prompt."""
    text = examples(page.read_text(encoding="utf-8"))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    typed = ModuleType("__main__")  # where names typed at a prompt are found
    test.globs = vars(typed)
    monkeypatch.setitem(sys.modules, "__main__", typed)
    runner = doctest.DebugRunner(optionflags=doctest.ELLIPSIS)
    try:
        runner.run(test)
    except doctest.DocTestFailure as failure:
        line = (failure.example.lineno or 0) + 1
        pytest.fail(
            f"{page.name}:{line}: {failure.example.source}"
            f"expected:\n{failure.example.want}got:\n{failure.got}",
            pytrace=False,
        )


def test_a_wrong_example_is_found():
    """A fence ends the expected output, and prose between the blocks is not an example."""
    page = ">>> prose\n\n```pycon\n>>> 1 + 1\n3\n```\nmore prose\n"
    (example,) = doctest.DocTestParser().get_examples(examples(page))
    assert (example.source, example.want, example.lineno) == ("1 + 1\n", "3\n", 3)


def programs(page: str) -> Iterator[str]:
    """Yield each block without prompts as a program, after the prompts above it on its page."""
    typed = ""
    for block in BLOCK.finditer(page):
        if block["language"] == "python":
            yield typed + block["code"]
            continue
        for example in doctest.DocTestParser().get_examples(block["code"]):
            typed += "" if example.exc_msg else example.source


PROGRAMS = [
    pytest.param(program, id=f"{path.relative_to(ROOT)}-{number}")
    for path in PAGES
    for number, program in enumerate(programs(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run(program: str, tmp_path: Path):
    """A block without prompts runs as well; a block of tests passes."""
    for name in OPTIONAL:
        if re.search(rf"from {name}\b", program) and importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    file = tmp_path / "test_program.py"
    file.write_text(program, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(PATIENT, encoding="utf-8")
    runner = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if "class Test" in program else []
    done = subprocess.run(
        [sys.executable, "-W", "error", *runner, file.name],
        cwd=tmp_path,
        env={
            **os.environ,
            "SHARDCACHE_URL": "memory://a,b,c",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },  # plugins have their own settings
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plugin_of_the_readme_is_a_plugin():
    """Its strategy is registered, and places keys."""
    (program,) = programs((ROOT / "README.md").read_text(encoding="utf-8"))
    module = ModuleType("readme")
    exec(compile(program, "README.md", "exec"), vars(module))
    plugins = Plugins()
    plugins.add(module, "readme", "readme")
    strategy = plugins.strategies["tagged"]()
    topology = Topology([Node("memory://a"), Node("memory://b"), Node("memory://c")], strategy)
    assert len({topology.owner(b"%d:{user7}" % number).name for number in range(50)}) == 1
