"""Servers of the ensemble that are stopped, killed and started again, and what it refuses."""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import suppress

import pytest
from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import KazooState
from kazoo.security import ACL, ANYONE_ID_UNSAFE, Permissions, make_digest_acl
from shardcache_zookeeper import session as sessions
from shardcache_zookeeper import transactions
from shardcache_zookeeper.answers import Answer

from shardcache import Client, ConfigurationError, LockUnavailable
from shardcache.operations.locks import acquire
from shardcache.testing.driving import make_client
from shardcache.testing.lock_calls import extend, held, operate, release, take, try_take
from shardcache.testing.servers import LOOPBACK, free_port
from shardcache.testing.waiting import eventually
from shardcache.testing.zookeeper import opens_session

PATIENCE = 20.0  # seconds in which what must come to pass has come to pass
SESSION = 3.0  # seconds, as in the fixture `url`


def nodes_below(kazoo, path):
    """Return the paths of all nodes below a path, as its server has them once it knows the last write."""
    found = []
    kazoo.sync(path)
    with suppress(NoNodeError):  # it has just been removed
        for name in kazoo.get_children(path):
            found += [f"{path}/{name}", *nodes_below(kazoo, f"{path}/{name}")]
    return found


@pytest.mark.parametrize("fault", ["kill", "pause"])
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_lock_survives_a_server(make, ensemble, fault, role):
    """It stays held and no other client gets it; soon locks are taken as before."""
    one, other = make(), make()
    lease = take(one, "report", 60, renew=True)
    server = ensemble.leader() if role == "leader" else ensemble.followers()[0]
    getattr(server, fault)()
    until = time.monotonic() + PATIENCE
    while True:
        try:
            assert try_take(other, "report", 60) is None or lease.lost
            again = take(other, "another", 60)
            break
        except LockUnavailable:  # while there is no leader
            assert time.monotonic() < until
    assert release(other, again) is True
    # A client of the silent server may have been too late to keep its lock. Then it knows.
    assert lease.valid or lease.lost
    ensemble.heal()


def test_servers_that_serve_open_sessions(ensemble):
    """Two that were killed take along the third's sessions; once all are healed, each opens one."""
    first, *others = ensemble.servers
    assert opens_session(first)
    for server in others:
        server.kill()
    assert not opens_session(first)
    ensemble.heal()
    assert all(map(opens_session, ensemble.servers))


def test_without_a_majority_locks_are_unavailable(make, ensemble):
    """At once after the first calls; with it they are back."""
    client = make(timeout=0.5)
    release(client, take(client, "report", SESSION))
    for server in ensemble.servers[:2]:
        server.kill()
    began = time.monotonic()
    with pytest.raises(LockUnavailable, match=r"can be reached|did not answer"):
        take(client, "report", SESSION)
    with pytest.raises(LockUnavailable):
        held(client, "report")
    assert client.get_or_set("value", lambda: 1, ttl=60, lock=True) == 1
    assert time.monotonic() - began < PATIENCE
    ensemble.heal()
    eventually(lambda: _takes(client), within=PATIENCE)


def _takes(client):
    try:
        return release(client, take(client, "report", SESSION))
    except LockUnavailable:
        return False


def test_an_ensemble_that_cannot_be_reached(mode):
    """Only the first call waits for it; the error names its servers."""
    port = free_port()
    url = f"zookeeper://user:hunter2@{LOOPBACK}:{port}/shop"
    client = make_client(mode, "memory://a", locks=url, timeout=0.5)
    with pytest.raises(LockUnavailable, match=rf"'report': no server of .*:{port}/shop") as raised:
        take(client, "report", 5)
    assert "hunter2" not in str(raised.value)
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(LockUnavailable):
            take(client, "report", 5)
    assert time.monotonic() - began < 0.5
    client.close()


def test_nothing_is_left_behind(make, kazoo, root):
    """Neither by holders, nor by attempts that fail; the path is made at the first lock."""
    one, other = make(), make()
    assert kazoo.exists(root) is None
    for name in ("report", "a/b"):
        lease = take(one, name, SESSION)
        assert try_take(other, name, SESSION) is None
        assert release(one, lease) is True
    folder = f"{root}/lock"
    eventually(lambda: nodes_below(kazoo, folder) == [], within=PATIENCE)


def test_a_killed_holder_leaves_no_directory(start, kazoo, url, root):
    """The servers remove it some time after they have ended the session."""
    process = start(url)
    process.ask("acquire", "report", SESSION)
    folder = f"{root}/lock"
    kazoo.sync(folder)
    assert kazoo.get_children(folder) == ["report"]
    process.signal(signal.SIGKILL)
    eventually(lambda: kazoo.get_children(folder) == [], within=PATIENCE)


def test_an_attempt_goes_on_while_directories_come_and_go(
    make, kazoo, monkeypatch, session_of, root
):
    """What it has seen of them is old by then: that is no error."""
    client = make()
    release(client, take(client, "report", SESSION))
    session = session_of()
    directory = f"{root}/lock/report"
    children = session.children

    def remove_after(path):
        names = children(path).result(PATIENCE)
        monkeypatch.undo()
        kazoo.delete(directory)
        return _answer(names)

    def make_after(path):
        with pytest.raises(NoNodeError):
            children(path).result(PATIENCE)
        monkeypatch.undo()
        kazoo.create(directory)
        return children(f"{directory}/none")

    kazoo.create(directory)
    for change in (remove_after, make_after):
        monkeypatch.setattr(session, "children", change)
        lease = take(client, "report", SESSION)
        assert lease.fence > 0
        assert release(client, lease) is True
    eventually(lambda: kazoo.exists(directory) is None, within=PATIENCE)


def _answer(value):
    reply = Answer()
    reply.set_result(value)
    return reply


def test_a_directory_that_may_not_be_removed_stays(make, kazoo, root):
    """A lock is released all the same: its node alone is deleted."""
    client = make()
    release(client, take(client, "report", SESSION))
    folder = f"{root}/lock"
    kazoo.create(f"{folder}/report")
    kazoo.set_acls(folder, [ACL(Permissions.ALL & ~Permissions.DELETE, ANYONE_ID_UNSAFE)])
    for _ in range(2):
        lease = take(client, "report", SESSION)
        assert release(client, lease) is True
        assert nodes_below(kazoo, folder) == [f"{folder}/report"]


def test_the_holders_of_many_locks_are_asked_for_in_few_requests(make, session_of, monkeypatch):
    """Of a thousand locks, one request for each would take longer than a call may."""
    client, names = make(), [b"%03d" % number for number in range(100)]
    leases = [take(client, name.decode(), 60) for name in names]
    session, requests, own = session_of(), [], threading.get_ident()
    send = session._send

    def count(*arguments, **options):
        if threading.get_ident() == own:  # not the keeper, which begins to watch the locks
            requests.append(arguments)
        return send(*arguments, **options)

    monkeypatch.setattr(session, "_send", count)
    monkeypatch.setattr(sessions, "LOOKS", 40)
    holders = operate(client, acquire.list_holders)
    assert [holder.name for holder in holders] == names
    assert [holder.fence for holder in holders] == [lease.fence for lease in leases]
    assert len(requests) <= 12


def test_a_lock_that_is_released_meanwhile_is_not_listed(
    make, kazoo, root, session_of, monkeypatch
):
    """Before the look at its directory, or after it."""
    client = make()
    for name in ("a", "b", "c"):
        take(client, name, 60)
    session = session_of()
    look = session.look

    def release_and_look(paths, read):
        if read is transactions.read_children and paths:
            kazoo.delete(f"{root}/lock/b", recursive=True)
        elif paths:
            kazoo.delete(paths[-1])
        session.sync(root).result(PATIENCE)
        return look(paths, read)

    monkeypatch.setattr(session, "look", release_and_look)
    assert [holder.name for holder in operate(client, acquire.list_holders)] == [b"a"]


def test_a_lock_that_may_not_be_looked_at_is_an_error(make, kazoo, root):
    """The list would look complete without it."""
    client = make()
    take(client, "a", 60)
    kazoo.set_acls(f"{root}/lock/a", [ACL(Permissions.ALL & ~Permissions.READ, ANYONE_ID_UNSAFE)])
    with pytest.raises(LockUnavailable, match="refuses access"):
        operate(client, acquire.list_holders)


def test_servers_that_do_not_know_a_request_are_too_old(make, monkeypatch):
    """The error says which release has it; no lock is left."""
    client, other = make(), make()
    monkeypatch.setattr(transactions.ReadTransaction, "type", 222)
    with pytest.raises(LockUnavailable, match=r"is too old: locks need ZooKeeper 3\.5"):
        operate(client, acquire.find_holder, "report")
    assert release(other, take(other, "report", SESSION)) is True


def test_a_process_keeps_many_locks_when_it_changes_servers(make, session_of):
    """The thread of the connection watches them all again: it must not wait for itself."""
    client = make()
    leases = [take(client, f"{number:03}", 60) for number in range(400)]
    connection, states = session_of()._connection, []
    connection.kazoo.add_listener(states.append)
    connection.drop()
    eventually(lambda: states == [KazooState.SUSPENDED, KazooState.CONNECTED], within=PATIENCE)
    time.sleep(SESSION)
    assert all(lease.valid for lease in leases)
    assert release(client, leases[0]) is True


def test_a_ttl_shorter_than_the_session_is_refused(make, kazoo, url, root):
    """A killed holder's lock lasts until its session ends; nothing is left behind."""
    client = make()
    message = rf"'report': a ttl of 1 s is shorter than {SESSION:g} s, the session timeout"
    with pytest.raises(ConfigurationError, match=message):
        take(client, "report", 1)
    assert kazoo.exists(root) is None
    servers = make(locks=url.replace(f"session_timeout={SESSION}", "session_timeout=0.2"))
    message = r"a ttl of 0\.5 s is shorter than 1 s, the smallest session timeout of the servers"
    with pytest.raises(ConfigurationError, match=message):
        take(servers, "report", 0.5)
    assert release(servers, take(servers, "report", 1)) is True


def test_an_extension_shorter_than_the_session_is_refused(make, session_of):
    """With both numbers, as at the attempt; the lock goes on counting down."""
    client = make()
    lease = take(client, "report", 2 * SESSION)
    message = rf"'report': a ttl of 1 s is shorter than {SESSION:g} s, the session timeout"
    with pytest.raises(ConfigurationError, match=message):
        extend(client, lease, 1)
    assert lease.valid
    session_of().words.timeout = 3 * SESSION  # as if the servers asked for more after a restart
    assert extend(client, lease, 2 * SESSION) > 0
    assert release(client, lease) is True


def test_access_that_is_refused(make, kazoo, url, caplog, root):
    """Other credentials, and none, get an error; the right ones do not show in the log."""
    caplog.set_level(logging.DEBUG, "shardcache")
    acl = make_digest_acl("shop", "hunter2", all=True)
    kazoo.ensure_path(root)
    kazoo.set_acls(root, [acl])
    for user in ("", "shop:wrong@", "other:hunter2@"):
        client = make(locks=url.replace("://", f"://{user}"))
        with pytest.raises(LockUnavailable, match="refuses access") as raised:
            take(client, "report", SESSION)
        assert "hunter2" not in str(raised.value)
        assert client.get_or_set("value", lambda: 1, ttl=60, lock=True) == 1
    client = make(locks=url.replace("://", "://shop:hunter2@"))
    lease = take(client, "report", SESSION)
    assert extend(client, lease, SESSION) > 0
    assert release(client, lease) is True
    assert "hunter2" not in caplog.text
    kazoo.add_auth("digest", "shop:hunter2")
    assert nodes_below(kazoo, f"{root}/lock") == []


def test_fences_grow_across_leaders(url, ensemble):
    """Also when another server leads."""
    with Client("memory://a", locks=url, timeout=5) as client:
        fences = []
        for _ in range(2):
            lease = client.lock("report", ttl=SESSION).acquire(PATIENCE)
            fences.append(lease.fence)
            lease.release()
            ensemble.leader().kill()
            ensemble.heal()
        lease = _first(lambda: client.lock("report", ttl=SESSION).acquire(PATIENCE))
        assert fences[0] < fences[1] < lease.fence


def _first(acquire):
    """Return the first lease that can be had."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return acquire()
        except LockUnavailable:
            assert time.monotonic() < until
