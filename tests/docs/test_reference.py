"""The reference names what the code has, neither more nor less."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from pathlib import Path

import click
import pytest

import shardcache
import shardcache.testing
from shardcache import errors
from shardcache.cli.app import cli
from shardcache.core.cache_policy import PolicyOptions
from shardcache.core.events import METHODS
from shardcache.operations.recompute.counters import COUNTERS
from shardcache.plugin import hookspecs
from shardcache.plugin.manager import load

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
HOOKS = {
    name: function
    for name, function in vars(hookspecs).items()
    if name.startswith("shardcache_") and callable(function)
}


def page(name: str) -> str:
    """Return the text of a reference page."""
    return (REFERENCE / f"{name}.md").read_text(encoding="utf-8")


def test_every_hook_is_documented_with_its_signature_and_an_example():
    """A hook's heading is its signature, and its section runs an implementation of it."""
    sections = re.split(r"^## ", page("hooks"), flags=re.MULTILINE)[1:]
    headings = [section.splitlines()[0] for section in sections]
    assert headings == [
        f"`{name}({', '.join(inspect.signature(function).parameters)})`"
        for name, function in HOOKS.items()
    ]
    for name, section in zip(HOOKS, sections, strict=True):
        assert f"...     def {name}(self" in section
        assert "@hookimpl" in section


def test_the_tree_of_errors_is_the_code_s():
    """Page and module draw the same tree, and it names every error there is."""
    tree = textwrap.dedent(inspect.getdoc(errors).partition("::\n")[2]).strip()
    assert tree in page("errors")
    raised = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.ShardCacheError)
    }
    assert raised <= set(re.findall(r"\w+", tree))
    assert raised <= set(shardcache.__all__)


def test_every_event_is_documented_with_its_method_and_fields():
    """A row of the table for each kind of event."""
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+) \|$", page("events"), flags=re.MULTILINE)
    assert rows == [
        (
            kind.__name__,
            method,
            ", ".join(f"`{field}`" for field in kind._fields),
        )
        for kind, method in METHODS.items()
    ]


def rows(name: str, heading: str) -> list[str]:
    """Return the first column of the table under a heading of a page."""
    section = page(name).partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)


def test_every_parameter_of_cached_is_documented():
    """The tables name the options and the fields of the policy, in the order of the code."""
    named = inspect.signature(shardcache.Client.cached).parameters
    others = {"self", "seconds", "ttl", "policy", "options"}
    own = [name for name in named if name not in others]
    assert rows("cached", "Key options") + rows("cached", "Results") == own
    options = [field.name for field in dataclasses.fields(shardcache.CachePolicy) if field.init]
    assert rows("cached", "Options") == options
    assert list(PolicyOptions.__annotations__) == options[1:]


def test_every_counter_is_documented():
    """The table of counters says of each what the code says."""
    section = page("cached").partition("## Counters\n")[2]
    table = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, flags=re.MULTILINE))
    assert table == COUNTERS
    assert list(shardcache.CacheInfo._fields) == list(COUNTERS)


def test_every_counter_of_a_node_is_documented():
    """The table has what `stats()` counts of each node, in its order."""
    with shardcache.Client("memory://a") as client:
        counted = list(client.stats()["a"].client)
    assert rows("client", "Counters of a node") == counted


def test_every_parameter_of_lock_is_documented():
    """The table of a lock's parameters is its signature."""
    parameters = inspect.signature(shardcache.Client.lock).parameters
    table = re.findall(r"^\| `(\w+)` \| [^|]+ \| ", page("locks"), flags=re.MULTILINE)
    assert table == [name for name in parameters if name not in {"self", "name"}]


@pytest.mark.parametrize(
    ("name", "package"), [("api", shardcache), ("api-testing", shardcache.testing)]
)
def test_every_public_name_has_its_docstring_on_a_page(name, package):
    """A page of the API shows each name of `__all__` once, and no other."""
    shown = re.findall(r"^\.\. auto\w+:: (\w+)$", page(name), flags=re.MULTILINE)
    assert sorted(shown) == sorted(package.__all__)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_the_page_of_commands_is_their_help(name):
    """What the page shows is what `--help` prints."""
    command = cli.commands[name]
    whole = click.Context(cli, info_name="shardcache", **cli.context_settings)
    context = click.Context(
        command, parent=whole, info_name=name, max_content_width=78, terminal_width=78
    )
    assert f"```text\n{command.get_help(context)}\n```" in page("cli")


def test_every_scheme_is_documented():
    """Each URL scheme has its place on the page of backends."""
    text = page("backends")
    assert [scheme for scheme in load().backends if f"`{scheme}`" not in text] == []
