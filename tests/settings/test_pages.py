"""The reference pages say what the code does."""

from __future__ import annotations

import re
import tomllib
from ast import literal_eval
from dataclasses import fields
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.placement.nodes import DEFAULT_PORTS, Node
from shardcache.settings import Settings, parse_nodes
from shardcache.settings.nodes import CLIENT_FIELDS
from shardcache.settings.parameters import FROM_ENVIRONMENT, PARAMETERS
from shardcache.settings.sources import CONFIG_VARIABLE, URL_VARIABLE, variable_of

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def rows(page, first):
    """Return the cells of the table of a page whose first column is called `first`."""
    table = page.partition(f"\n| {first} |")[2].partition("\n\n")[0]
    _, _, *body = table.splitlines()
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in body]


def settings_of(page):
    """Return the text of each entry in the list of settings, by its name."""
    listed = page.partition("## All settings\n")[2].partition("\n\nDurations")[0]
    return dict(re.findall(r"^`(\w+)`\n: (.+?)(?=\n\n`|\Z)", listed, re.MULTILINE | re.DOTALL))


def told(entry, what):
    """Return what an entry says behind a word in italics, without its full stop."""
    found = re.search(rf"\*{what}:\* (.+?)\.(?=\s|$)", entry)
    return found and found[1]


def code(cell):
    """Return the texts between the backquotes of a cell."""
    return re.findall(r"`([^`]*)`", cell)


@pytest.fixture(scope="module")
def settings_page():
    """Return the text of the page about settings."""
    return (REFERENCE / "settings.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def urls_page():
    """Return the text of the page about URLs."""
    return (REFERENCE / "urls.md").read_text(encoding="utf-8")


def test_every_setting_is_on_the_page(settings_page):
    """The list has the parameters of the code, in their order, and no others."""
    names = list(settings_of(settings_page))
    assert names == list(PARAMETERS)
    assert {field.name for field in fields(Settings)} == {*names} - {"connect_timeout"}


def test_spellings_of_the_page_are_those_of_the_code(settings_page):
    """An entry says which variable is read, and whether a URL can hold the setting."""
    for setting, entry in settings_of(settings_page).items():
        if setting in {"ssl_context", "shadow"}:  # only Python code has one
            assert setting not in FROM_ENVIRONMENT
            assert told(entry, "Variable") is None
            assert "no variable, file or URL has it" in " ".join(entry.split())
        elif setting == "nodes":
            assert told(entry, "Variable") == f"`{URL_VARIABLE}`"
        else:
            assert setting in FROM_ENVIRONMENT
            assert told(entry, "Variable") == f"`{variable_of(setting)}`"
            in_a_url = None if setting in CLIENT_FIELDS else "not possible"
            assert told(entry, "In a URL") == in_a_url
    assert CONFIG_VARIABLE in settings_page


def test_defaults_of_the_page_are_those_of_the_code(settings_page):
    """A setting that is left out has the default of its entry."""
    settings = Settings.of(nodes="memory://")
    actual = {field.name: getattr(settings, field.name) for field in fields(Settings)}
    actual |= {"timeout": settings.timeout.call, "connect_timeout": settings.timeout.connect}
    defaults = {
        name: literal_eval(code(told(entry, "Default"))[0])
        for name, entry in settings_of(settings_page).items()
        if name != "nodes"
    }
    assert defaults == {name: actual[name] for name in PARAMETERS if name != "nodes"}


def test_the_file_of_the_page_can_be_loaded(settings_page, tmp_path):
    """The example of a file can be loaded, and means what it says."""
    text = settings_page.partition("```toml\n")[2].partition("```")[0]
    path = tmp_path / "shardcache.toml"
    path.write_text(text, encoding="utf-8")
    settings = Settings.load(path)
    assert [(node.name, node.weight) for node in settings.nodes] == [
        ("10.0.0.1:11211", 1),
        ("10.0.0.2:11211", 2),
        ("blue", 3),
    ]
    written = tomllib.loads(text)
    assert settings.timeout.connect == written["connect_timeout"]
    assert settings.strategy == written["strategy"]


def test_urls_of_the_page_give_its_nodes(urls_page):
    """Each URL of the table names the nodes of its row, with their weights."""
    table = rows(urls_page, "URL")
    assert len(table) > 10
    for url, named in table:
        nodes, settings = parse_nodes(*code(url))
        expected = re.findall(r"`([^`]*)`(?: × ([\d.]+))?", named)
        assert [(node.name, node.weight) for node in nodes] == [
            (name, float(weight or 1)) for name, weight in expected
        ]
        assert not settings


def test_ports_of_the_page_are_those_of_the_code(urls_page):
    """Each scheme has the default port of its row, and no other scheme has one."""
    ports = {code(scheme)[0]: port for scheme, _, port in rows(urls_page, "scheme")}
    assert {scheme: int(port) for scheme, port in ports.items() if port != "–"} == DEFAULT_PORTS


def test_queries_of_the_page_give_its_settings(urls_page):
    """Each URL with settings has those of its row."""
    table = rows(urls_page.partition("## The query")[2], "URL")
    assert table
    for url, settings_told in table:
        given_ = dict(text.split("=", 1) for text in code(settings_told))
        expected = {name: literal_eval(text) for name, text in given_.items()}
        (written,) = code(url)
        settings = Settings.from_url(written)
        assert settings == Settings.of(nodes=written.partition("?")[0], **expected)


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_quoting_as_the_page_says_keeps_a_password(password):
    """A password of any characters survives the recipe of the page."""
    node = Node(f"redis://app:{quote(password, safe='')}@h")
    assert node.address.password == password
