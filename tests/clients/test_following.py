"""A running client follows its file of settings."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
import weakref
from contextlib import contextmanager

import pytest

from shardcache import AsyncClient, Client, ConfigurationError, Observer
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually

SOON = 20  # seconds, on a busy machine
OFTEN = 0.02
THREAD = "shardcache config"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Return the file of the environment; it names two nodes."""
    path = tmp_path / "shardcache.toml"
    write(path, "a", "b")
    monkeypatch.setenv("SHARDCACHE_CONFIG", str(path))
    monkeypatch.delenv("SHARDCACHE_URL", raising=False)
    return path


def write(path, *names, more=""):
    """Write a file with these nodes, in one step."""
    written = path.with_suffix(".new")
    urls = ", ".join(f'"memory://{name}"' for name in names)
    written.write_text(f"nodes = [{urls}]\n{more}")
    written.replace(path)


def own(client):
    """Return the client itself, of whatever kind."""
    return getattr(client, "twin", client)


def names(client):
    """Return the names of a client's nodes."""
    return [node.name for node in client.nodes]


def followers():
    """Return the threads that follow a file."""
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def lines(caplog):
    """Return the lines of the log, each with its level."""
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@contextmanager
def following(mode, *args, **options):
    """Yield a client that has looked at its file once; close it."""
    client = make_client(mode, "memory://a,b")
    own(client).follow_config(*args, **{"every": OFTEN, **options})
    client.get("k")
    eventually(lambda: own(client)._follower._file._seen, within=SOON)
    try:
        yield client
    finally:
        client.close()


def test_a_running_client_uses_the_nodes_of_the_file(mode, file, caplog):
    """Without a restart, and the log says what moved."""
    with following(mode) as client, caplog.at_level(logging.INFO, logger="shardcache"):
        assert client.set("k", 1)
        write(file, "a", "b", "c")
        eventually(lambda: names(client) == ["a", "b", "c"], within=SOON)
        eventually(lambda: caplog.records, within=SOON)
        assert client.set("other", 2)
    ((level, line),) = lines(caplog)
    moved = f"about {100 * share_of_a_third():.0f} % of the keys moved"
    assert (level, line) == ("INFO", f"nodes changed by {file}: +c; {moved}")


def test_values_follow_their_keys(mode, file):
    """With `warm_for`, what a key's old node has is found after a change of the file."""
    with following(mode, warm_for=60) as client:
        values = {f"k{number}": number for number in range(100)}
        assert client.set_many(values) == []
        write(file, "a", "b", "c")
        eventually(lambda: len(names(client)) == 3, within=SOON)
        assert client.get_many(list(values)) == values
        assert client.counters().moving["copied"] > 0


def test_the_file_says_for_how_long(mode, file):
    """An argument precedes it; the last state of the file counts."""
    with following(mode) as client:
        values = {f"k{number}": number for number in range(100)}
        assert client.set_many(values) == []
        write(file, "a", "b", "c", more="[follow]\nwarm_for = 60\n")
        eventually(lambda: len(names(client)) == 3, within=SOON)
        assert client.get_many(list(values)) == values
    write(file, "a", "b", more="[follow]\nwarm_for = 60\n")
    with following(mode, warm_for=0) as client:
        write(file, "a", "b", "c", more="[follow]\nwarm_for = 60\n")
        eventually(lambda: len(names(client)) == 3, within=SOON)
        assert client.counters().moving == {}


def test_what_is_found_at_the_start_reads_no_old_node(mode, file):
    """Others may have left it long ago: what it holds is old."""
    client = make_client(mode, "memory://a,b")
    own(client).follow_config(warm_for=60, announce_for=60)
    write(file, "a", "c")
    client.get("k")
    eventually(lambda: names(client) == ["a", "c"], within=SOON)
    assert client.counters().moving == {}
    client.close()


ANNOUNCED = "[follow]\nwarm_for = 60\nannounce_for = {}\n"


def test_nodes_are_announced_before_they_are_used(mode, file, caplog):
    """By each process, so that all of them know the next nodes before the first one reads there."""
    caplog.set_level(logging.INFO, logger="shardcache")
    with following(mode) as client:
        write(file, "a", "b", "c", more=ANNOUNCED.format(1))
        eventually(lambda: names(client) == ["a", "b", "c"], within=SOON)
        assert client.counters().moving["seconds_left"] > 60
        eventually(lambda: f"nodes changed by {file}" in caplog.text, within=SOON)
    first, second = [line for _, line in lines(caplog) if f"by {file}: " in line]
    assert first == f"next nodes by {file}: +c; they are used in 1 s"
    assert second.startswith(f"nodes changed by {file}: +c; ")


def test_the_first_switch_waits_for_two_looks_of_each_process(mode, file, caplog):
    """Whatever the file says: one process may have looked just before it was changed."""
    caplog.set_level(logging.INFO, logger="shardcache")
    with following(mode, every=300, on_signal=signal.SIGUSR2) as client:
        write(file, "c", more=ANNOUNCED.format(1))
        os.kill(os.getpid(), signal.SIGUSR2)
        eventually(lambda: str(file) in caplog.text, within=SOON)
        assert "next c" in client.counters()
        assert names(client) == ["a", "b"]
    assert f"next nodes by {file}: +c -a -b; they are used in 600 s" in caplog.text


def test_another_change_replaces_the_announcement(mode, file, caplog):
    """Nodes that were announced and are named no more are never used."""
    caplog.set_level(logging.INFO, logger="shardcache")
    with following(mode) as client:
        write(file, "a", "b", "c", more=ANNOUNCED.format(600))
        eventually(lambda: "next c" in client.counters(), within=SOON)
        write(file, "a", "b", "d", more=ANNOUNCED.format(600))
        eventually(lambda: "next d" in client.counters(), within=SOON)
        assert "next c" not in client.counters()
        write(file, "a", "b", more=ANNOUNCED.format(600))
        eventually(lambda: client.counters().moving == {}, within=SOON)
        write(file, "a", "b", more=ANNOUNCED.format(600) + "# nothing more\n")
        eventually(lambda: "are the present ones again" in caplog.text, within=SOON)
        time.sleep(0.3)
        assert names(client) == ["a", "b"]
        assert own(client)._follower._next is None


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("follow = 3\n", "follow: must be a table"),
        ("[follow]\nwarm_for = -1\n", "follow: warm_for: must be zero or more"),
        ("[follow]\nannounce_for = 'x'\n", "follow: announce_for: must be seconds as a number"),
        ("[follow]\nwarmfor = 3\n", "follow: warmfor: no such option .*did you mean 'warm_for'"),
    ],
)
def test_the_table_is_checked_by_all_who_read_the_file(file, more, fault):
    """With the file's name, and the option's."""
    write(file, "a", more=more)
    with pytest.raises(ConfigurationError, match=f"shardcache.toml: {fault}"):
        Client.from_env()


def share_of_a_third():
    """Return the share of keys that move when a third node comes to two others."""
    with Client("memory://a,b") as client:
        return client.add_node("memory://c").moved


def test_names_and_weights_change_too(mode, file):
    """A weight moves keys; a name stays when the address changes."""
    tables = (
        '[[nodes]]\nurl = "memory://a"\nweight = 3\n[[nodes]]\nurl = "memory://y"\nname = "b"\n'
    )
    with following(mode) as client:
        file.write_text(tables)
        eventually(lambda: client.nodes[0].weight == 3, within=SOON)
        assert [(node.name, node.url) for node in client.nodes] == [
            ("a", "memory://a"),
            ("b", "memory://y"),
        ]


def test_a_file_that_has_changed_before_the_first_call_is_used(mode, file):
    """As when a worker is forked long after its parent read the file."""
    client = make_client(mode, "memory://a,b")
    own(client).follow_config(every=None, on_signal=signal.SIGUSR2)
    write(file, "z")
    assert names(client) == ["a", "b"]
    client.get("k")
    eventually(lambda: names(client) == ["z"], within=SOON)
    client.close()


def test_a_broken_file_keeps_the_nodes(mode, file, caplog):
    """One warning, until the file changes again."""
    with following(mode) as client:
        file.write_text("nodes = [")
        eventually(lambda: caplog.records, within=SOON)
        time.sleep(5 * OFTEN)
        ((level, line),) = lines(caplog)
        assert level == "WARNING"
        assert line.startswith(f"nodes not changed: {file}: is not TOML: ")
        assert names(client) == ["a", "b"]
        write(file, "a")
        eventually(lambda: names(client) == ["a"], within=SOON)


def test_a_change_that_the_strategy_cannot_follow_keeps_the_nodes(file, caplog):
    """It is a warning as well."""
    write(file, "a", "b", more='strategy = "jump"\n')
    with Client.from_env() as client:
        client.follow_config(every=OFTEN)
        client.get("k")
        write(file, "b", more='strategy = "jump"\n')
        eventually(lambda: caplog.records, within=SOON)
        assert names(client) == ["a", "b"]
    assert "nodes not changed: " in caplog.text


def test_other_settings_are_named_once(mode, file, caplog):
    """They need a restart; the nodes change all the same."""
    with following(mode) as client:
        write(file, "c", more='strategy = "jump"\npool_size = 3\n')
        eventually(lambda: caplog.records, within=SOON)
        assert names(client) == ["c"]
        write(file, "d", more='strategy = "jump"\npool_size = 3\n')
        eventually(lambda: names(client) == ["d"], within=SOON)
    eventually(lambda: not followers(), within=SOON)
    others = "strategy, pool_size"
    line = f"{file} has other settings than this process: {others}; restart it to use them"
    assert lines(caplog) == [("WARNING", line)]


class Changes(Observer):
    """Counts changes of nodes."""

    count = 0

    def topology_changed(self, _event):
        """Count one."""
        self.count += 1


def test_a_file_with_the_same_nodes_changes_nothing(file):
    """A comment moves no key."""
    changes = Changes()
    with Client.from_env(observers=[changes]) as client:
        client.follow_config(every=OFTEN)
        client.get("k")
        write(file, "a", "b", more="# a comment\n")
        time.sleep(0.3)
        write(file, "a", "c")
        eventually(lambda: names(client) == ["a", "c"], within=SOON)
    assert changes.count == 1


def test_an_error_of_another_ends_nothing(file, caplog, monkeypatch):
    """It is in the log with its traceback, and the next change is used."""
    with Client.from_env() as client:
        client.follow_config(every=OFTEN)
        client.get("k")
        with monkeypatch.context() as patch:
            patch.setattr(client._membership, "notify_changed", lambda _: 1 / 0)
            write(file, "c")
            eventually(lambda: caplog.records, within=SOON)
        write(file, "d")
        eventually(lambda: names(client) == ["d"], within=SOON)
    (record,) = caplog.records
    assert (record.levelname, record.exc_info[0]) == ("ERROR", ZeroDivisionError)
    assert record.getMessage() == f"following {file} failed; looking again at its next change"


@pytest.mark.usefixtures("file")
def test_closing_or_dropping_the_client_ends_the_thread(mode):
    """Nothing waits for it, and it holds nothing."""
    with following(mode, every=3600):
        assert len(followers()) == 1
    eventually(lambda: not followers(), within=SOON)
    client = Client.from_env(follow=True)
    client.get("k")
    assert len(followers()) == 1
    dropped = weakref.ref(client)
    del client
    gc.collect()
    assert dropped() is None
    eventually(lambda: not followers(), within=SOON)


@pytest.mark.usefixtures("file")
def test_from_env_follows_the_file_of_the_environment(monkeypatch):
    """Where there is one: a default of developers has no file."""
    with Client.from_env(follow=True) as client:
        assert "shardcache.toml" in repr(client._follower)
    monkeypatch.setenv("SHARDCACHE_URL", "memory://a")
    with pytest.raises(ConfigurationError, match="SHARDCACHE_URL names the nodes"):
        Client.from_env(follow=True)
    monkeypatch.delenv("SHARDCACHE_CONFIG")
    for default in (None, "memory://a"):
        with Client.from_env(default, follow=True) as client:
            assert client._follower is None
    assert AsyncClient.from_env(follow=True)._follower is None


@pytest.mark.usefixtures("file")
def test_from_env_follows_only_when_asked(monkeypatch):
    """By the program, or by the operator if the program says nothing."""
    for variable, follow, expected in [
        ("", None, False),
        ("no", None, False),
        ("yes", None, True),
        ("yes", False, False),
        ("no", True, True),
    ]:
        monkeypatch.setenv("SHARDCACHE_FOLLOW", variable)
        with Client.from_env(follow=follow) as client:
            client.get("k")
            assert bool(followers()) is expected
        eventually(lambda: not followers(), within=SOON)
    monkeypatch.setenv("SHARDCACHE_FOLLOW", "maybe")
    with pytest.raises(ConfigurationError, match="SHARDCACHE_FOLLOW: must be yes"):
        Client.from_env()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"every": None}, "without `every` it needs `on_signal`"),
        ({"every": 0}, "every: must be above zero"),
        ({"every": "5"}, "every: must be seconds as a number"),
        ({"on_signal": signal.SIGKILL}, "on_signal: "),
        ({"warm_for": -1}, "warm_for must be zero or more"),
        ({"announce_for": "1"}, "announce_for must be seconds as a number"),
        ({"on_signal": "HUP"}, "on_signal: "),
        ({"path": "/no/such.toml"}, "/no/such.toml: cannot be read"),
    ],
)
@pytest.mark.usefixtures("file")
def test_what_cannot_work_is_refused(mode, options, fault):
    """At once, with the name of the option."""
    client = make_client(mode, "memory://a")
    with pytest.raises(ConfigurationError, match=fault):
        own(client).follow_config(**options)
    own(client).follow_config()
    with pytest.raises(ConfigurationError, match=r"has <ConfigFollower .* already"):
        own(client).follow_config()
    with pytest.raises(ConfigurationError, match="a view has the nodes of its client"):
        own(client).view(namespace="x").follow_config()
    client.close()


@pytest.fixture
def hup():
    """Restore the handler of SIGHUP."""
    before = signal.getsignal(signal.SIGHUP)
    yield signal.SIGHUP
    signal.signal(signal.SIGHUP, before)


def test_a_signal_has_the_file_read(mode, file, hup):
    """At once, and only then if there is no `every`."""
    with following(mode, every=None, on_signal=hup) as client:
        write(file, "c")
        time.sleep(0.3)
        assert names(client) == ["a", "b"]
        os.kill(os.getpid(), hup)
        eventually(lambda: names(client) == ["c"], within=SOON)


@pytest.mark.usefixtures("file")
def test_a_handler_that_is_there_is_called_too(mode, hup):
    """A signal is never taken from the program."""
    received = []
    signal.signal(hup, lambda number, _: received.append(number))
    with following(mode, on_signal=hup):
        os.kill(os.getpid(), hup)
        assert received == [hup]
    os.kill(os.getpid(), hup)  # the client is closed
    assert received == [hup, hup]


@pytest.mark.usefixtures("file")
def test_no_signal_is_touched_unless_it_is_named(mode, hup):
    """The default looks at the file only."""
    with following(mode):
        assert signal.getsignal(hup) is signal.SIG_DFL


@pytest.mark.usefixtures("file")
def test_a_handler_that_cannot_be_called_is_not_replaced(hup, monkeypatch):
    """One that another language has installed would be lost."""
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    with Client.from_env() as client, pytest.raises(ConfigurationError, match="would be lost"):
        client.follow_config(on_signal=hup)
    monkeypatch.undo()
    assert signal.getsignal(hup) is signal.SIG_DFL


@pytest.mark.usefixtures("file")
def test_a_signal_needs_the_main_thread(hup):
    """In another thread Python cannot install a handler: the error says so."""
    errors = []

    def follow():
        with Client.from_env() as client:
            try:
                client.follow_config(on_signal=hup)
            except ConfigurationError as error:
                errors.append(str(error))

    thread = threading.Thread(target=follow)
    thread.start()
    thread.join(SOON)
    assert "main thread" in errors[0]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_reads_old_nodes_after_a_change(file):
    """Its start is over with its first look, also if its parent had looked at the same file."""
    client = Client.from_env()
    client.follow_config(every=OFTEN)
    client.get("k")
    eventually(lambda: client._follower._file._seen, within=SOON)
    if (child := os.fork()) == 0:
        status = 1
        try:
            client.get("k")
            time.sleep(20 * OFTEN)
            write(file, "a", "b", "c", more="[follow]\nwarm_for = 60\n")
            eventually(lambda: len(names(client)) == 3, within=SOON)
            status = int(not client.counters().moving)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    client.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_follows_the_file_itself(file):
    """Also one whose parent made no call, and with the nodes of now."""
    client = Client.from_env()
    client.follow_config(every=OFTEN)
    for parent_calls in (False, True):
        if parent_calls:
            client.get("k")
        write(file, "a", "b", f"new{parent_calls}")
        if (child := os.fork()) == 0:
            status = 1
            try:
                client.get("k")
                eventually(lambda: len(names(client)) == 3, within=SOON)
                write(file, "last")
                eventually(lambda: names(client) == ["last"], within=SOON)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    eventually(lambda: names(client) == ["last"], within=SOON)
    client.close()
