"""How plugins are found, named, blocked and told apart."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import types

import pytest

from shardcache import ConfigurationError, UnknownPluginError, decorators, hookimpl
from shardcache.plugin import manager
from shardcache.plugin.manager import PLUGINS_VARIABLE, PluginFilter, Plugins, load
from shardcache.plugin.registry import Registry
from shardcache.strategies.maglev import Maglev


def plugin(**hooks):
    """Make a plugin of hook implementations."""
    module = types.ModuleType("plugin")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


def test_the_package_registers_itself_through_the_hooks():
    """What is built in is offered as a plugin's things are."""
    loaded = Plugins(PluginFilter.parse("none"))  # for some are installed where their own tests run
    assert list(loaded.strategies) == [
        "crc16", "jump", "ketama", "maglev", "modulo", "pymemcache", "rendezvous",
    ]  # fmt: skip
    assert list(loaded.codecs) == ["json", "msgpack", "pickle", "raw"]
    assert {"memory", "memcached", "memcacheds", "memcached+unix", "pymemcache"} <= set(
        loaded.backends
    )
    assert {"redis", "rediss", "redis+unix"} <= set(loaded.backends)
    assert loaded.strategies.origin("ketama") == "shardcache"


def test_a_plugin_adds_a_strategy():
    """What a plugin offers is there by its name, with where it came from."""
    loaded = Plugins()
    offered = plugin(
        shardcache_register_strategies=lambda registry: registry.register("mine", Maglev)
    )
    loaded.add(offered, "mine", "my-distribution")
    assert loaded.strategies["mine"] is Maglev
    assert loaded.strategies.origin("mine") == "my-distribution"
    assert loaded.infos[-1].offers == ("strategy mine",)


def test_two_claims_to_one_name_are_reported_with_both_names():
    """Nobody's strategy is replaced in silence."""
    loaded = Plugins()
    offered = plugin(
        shardcache_register_strategies=lambda registry: registry.register("ketama", Maglev)
    )
    with pytest.raises(ConfigurationError, match=r"'ketama' .*both shardcache and rival"):
        loaded.add(offered, "rival", "rival")


def test_a_hook_that_is_none_is_refused():
    """A misspelt hook is an error that names the plugin."""
    loaded = Plugins()
    misspelt = plugin(shardcache_register_stratergies=lambda: None)
    with pytest.raises(ConfigurationError, match=r"'odd' of odd-dist.*stratergies"):
        loaded.add(misspelt, "odd", "odd-dist")


def test_changes_of_nodes_are_reported_to_plugins():
    """A plugin hears of each change, after it."""
    told: list[object] = []

    def note(change):
        told.append(change)

    loaded = Plugins()
    loaded.add(plugin(shardcache_topology_changed=note), "x", "x")
    marker = object()
    loaded.topology_changed(marker)
    assert told == [marker]


def test_unknown_names_say_what_is_known():
    """A registry names what there is."""
    registry: Registry[int] = Registry("number")
    with pytest.raises(UnknownPluginError, match=r"no such number \(known: none\)"):
        registry["one"]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return what installs a distribution with plugins, each of which notes that it was imported."""
    monkeypatch.syspath_prepend(tmp_path)
    imported: list[str] = []
    monkeypatch.setattr(sys, "imported_plugins", imported, raising=False)

    def install(distribution, **plugins):
        info = tmp_path / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        lines = [f"{name} = {module}" for name, module in plugins.items()]
        (info / "entry_points.txt").write_text("\n".join(["[shardcache]", *lines]))
        for module in plugins.values():
            monkeypatch.delitem(sys.modules, module, raising=False)
            (tmp_path / f"{module}.py").write_text(
                "import sys\nsys.imported_plugins.append(__name__)\n"
            )
        return imported

    return install


def load_by(monkeypatch, choice):
    """Return what is loaded by a choice that no other test has made."""
    monkeypatch.setattr(manager, "_loaded", {})
    monkeypatch.setenv(PLUGINS_VARIABLE, choice)
    return load()


@pytest.mark.parametrize(
    "choice", ["-", "-*", "*", "a,-b", "-a,b", "none,a", "-none", "a,none", "exam*"]
)
def test_a_choice_of_plugins_that_makes_no_sense_is_refused(monkeypatch, choice):
    """The error says what can be written; nothing is taken for a choice of all."""
    with pytest.raises(ConfigurationError, match=r"SHARDCACHE_PLUGINS: .*or none to load none"):
        load_by(monkeypatch, choice)


@pytest.mark.parametrize(
    ("choice", "loaded", "blocked"),
    [
        ("", ["plugin_one", "plugin_two", "plugin_three"], set()),
        ("none", [], {"one", "two", "three"}),
        ("one", ["plugin_one"], {"two", "three"}),
        (" two , one ", ["plugin_one", "plugin_two"], {"three"}),
        ("-two", ["plugin_one", "plugin_three"], {"two"}),
        ("-two,-three,-absent", ["plugin_one"], {"two", "three"}),
    ],
)
def test_the_environment_says_which_plugins_are_loaded(
    install, monkeypatch, choice, loaded, blocked
):
    """Code of the others does not run; what was kept out is told."""
    imported = install("pair", one="plugin_one", two="plugin_two")
    install("single", three="plugin_three")
    plugins = load_by(monkeypatch, choice)
    assert sorted(imported) == sorted(loaded)
    assert blocked <= plugins.blocked
    assert not plugins.blocked & {name.removeprefix("plugin_") for name in loaded}
    names = {info.name for info in plugins.infos}
    assert {name.removeprefix("plugin_") for name in loaded} <= names
    assert not names & plugins.blocked


def test_a_plugin_that_is_named_and_not_installed_is_an_error(install, monkeypatch):
    """A misspelt name would otherwise be a plugin less, in silence; nothing was imported."""
    imported = install("pair", one="plugin_one")
    with pytest.raises(
        ConfigurationError, match=r"not installed \(installed of those: one; known: .*one"
    ):
        load_by(monkeypatch, "one,onne")
    assert imported == []


def test_a_plugin_that_is_called_as_the_package_can_be_kept_out(install, monkeypatch):
    """It is told before its code runs, by name and distribution, and with the way out."""
    imported = install("impostor", shardcache="plugin_impostor")
    with pytest.raises(ConfigurationError) as raised:
        load_by(monkeypatch, "")
    assert str(raised.value) == (
        "plugin 'shardcache' of impostor: shardcache has a plugin of this name"
        " (SHARDCACHE_PLUGINS=-shardcache blocks installed plugins of this name)"
    )
    for choice in ("-shardcache", "none"):
        assert load_by(monkeypatch, choice).strategies.origin("ketama") == "shardcache"
    assert imported == []


def test_two_plugins_of_one_name_are_reported_with_both_distributions(install, monkeypatch):
    """Whichever was meant; and so is one plugin under two names."""
    install("first", same="plugin_one")
    install("second", same="plugin_two")
    with pytest.raises(ConfigurationError, match=r"'same' of (first|second): (first|second) has"):
        load_by(monkeypatch, "")
    assert "plugin_one" not in str(load_by(monkeypatch, "-same").infos)


def test_one_plugin_under_two_names_is_reported(install, monkeypatch):
    """Its hooks would run once, under a name that nobody can choose."""
    install("twice", one="plugin_one", other="plugin_one")
    with pytest.raises(
        ConfigurationError, match="'other' of twice: it is already loaded as 'one'"
    ) as raised:
        load_by(monkeypatch, "")
    assert "{" not in str(raised.value)


def test_a_plugin_that_cannot_be_loaded_names_itself_and_the_way_out(tmp_path):
    """A broken distribution is an error that says how to keep it out."""
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[shardcache]\nbad = no_such_module\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from shardcache import Client, ConfigurationError\n"
        "try: Client('memory://a')\n"
        "except ConfigurationError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "'bad' of broken" in result.stdout
    assert "SHARDCACHE_PLUGINS=-bad" in result.stdout


def test_a_plugin_that_makes_a_client_as_it_is_imported_is_there_for_all_others(tmp_path):
    """That client alone has to do without what the plugin offers."""
    info = tmp_path / "early-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: early\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[shardcache]\nearly = early\n")
    (tmp_path / "early.py").write_text(
        "import shardcache\n"
        "client = shardcache.Client('memory://a')\n"
        "@shardcache.hookimpl\n"
        "def shardcache_register_strategies(registry):\n"
        "    from shardcache.strategies.rendezvous import Rendezvous\n"
        "    registry.register('mine', Rendezvous)\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from shardcache import Client\n"
        "for _ in range(2): Client('memory://a', strategy='mine')\n"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_a_finalizer_that_asks_while_plugins_are_loaded_waits_for_no_thread_that_waits_for_them(
    monkeypatch,
):
    """One thread loads them, another makes the default client, and the finalizer wants that client."""
    monkeypatch.setenv(PLUGINS_VARIABLE, "-nobody-else")  # nothing was loaded with it yet
    monkeypatch.setenv("SHARDCACHE_URL", "memory://a")
    defaults, threads, found = decorators.Defaults(), [], []

    def ask():
        found.append(defaults.client())

    def blocked(_):
        if not threads:
            threads.append(threading.Thread(target=ask, daemon=True))
            threads[0].start()
            time.sleep(0.2)  # it waits now
            ask()  # as a finalizer would
        return PluginFilter()

    monkeypatch.setattr(PluginFilter, "parse", staticmethod(blocked))
    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    loading.join(5)
    assert not loading.is_alive()
    threads[0].join(5)
    assert found[0] is found[1]
    found[0].close()
