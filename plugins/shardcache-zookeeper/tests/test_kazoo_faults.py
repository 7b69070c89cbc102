"""What users of kazoo's own lock met does not happen here; the numbers are those of its issues."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from contextlib import suppress

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss
from kazoo.protocol.states import KazooState
from kazoo.retry import ForceRetryError, KazooRetry
from shardcache_zookeeper.answers import Answer
from shardcache_zookeeper.connection import RETRY

from shardcache import AsyncClient, Client, ClientClosedError, LockLost, LockUnavailable
from shardcache.testing.lock_calls import extend, release, take, try_take
from shardcache.testing.waiting import eventually

PATIENCE = 20.0  # seconds in which what must come to pass has come to pass
SESSION = 3.0  # seconds, as in the fixture `url`


def expire(session):
    """Have the ensemble end a session, as if it had not heard from it for long."""
    twin = KazooClient(
        hosts=session.ensemble.hosts, client_id=session._connection.kazoo.client_id, timeout=SESSION
    )
    twin.start()
    twin.stop()
    twin.close()


def test_a_holder_learns_that_its_session_has_expired(make, session_of):
    """#2: at once, by the lease and as an event; the next holder's fence is larger."""
    events = []

    class Listener:
        def lease_lost(self, event):
            events.append(event.name)

    client, other = make(observers=[Listener()]), make()
    lease = take(client, "report", 60)
    expire(session_of())
    eventually(lambda: lease.lost, within=PATIENCE)
    eventually(lambda: events == [b"report"], within=PATIENCE)
    assert (lease.valid, lease.remaining()) == (False, 0)
    with pytest.raises(LockLost, match="session has expired"):
        extend(client, lease, 60)
    again = take(other, "report", 60, wait=PATIENCE)
    assert again.fence > lease.fence
    assert release(client, lease) is False
    assert again.valid


def test_an_observer_of_a_loss_holds_up_no_thread_of_kazoos(url, session_of):
    """It may take a lock, for which the session's next connection is needed."""
    seen, told = threading.Event(), []

    class Listener:
        def lease_lost(self, event):
            seen.wait(PATIENCE)
            told.append(event.name)

    with Client("memory://a", locks=url, timeout=5, observers=[Listener()]) as client:
        lease = client.lock("report", ttl=60).acquire()
        session_of()._change_state(KazooState.LOST)  # as kazoo's thread does
        assert (lease.lost, told) == (True, [])
        seen.set()
        eventually(lambda: told == [b"report"], within=PATIENCE)


def test_a_suspended_session_counts_down(make, ensemble):
    """#2: without an answer the lease ends by the holder's own clock, before the session does."""
    client = make()
    lease = take(client, "report", 60)
    for server in ensemble.servers:
        server.pause()
    began = time.monotonic()
    eventually(lambda: not lease.valid, within=SESSION + 1)
    assert time.monotonic() - began <= SESSION
    assert lease.lost
    ensemble.heal()
    assert not lease.valid


def test_a_lock_is_acquired_after_the_connection_was_lost(make, ensemble):
    """#282, #170, #241: all servers were killed and are back, the same client goes on."""
    client = make()
    lease = take(client, "report", 60)
    for server in ensemble.servers:
        server.kill()
    ensemble.heal()
    release(client, lease)

    def acquires():
        try:
            return release(client, take(client, "report", 60, wait=1))
        except (LockUnavailable, TimeoutError):
            return False

    eventually(acquires, within=PATIENCE)


def test_an_acquire_on_a_closed_client_does_not_hang(url):
    """#482, #83: it is an error, at once; a client that has just been made connects."""
    client = Client("memory://a", locks=url, timeout=5)
    client.lock("report", ttl=60).acquire().release()
    client.close()
    began = time.monotonic()
    with pytest.raises((ClientClosedError, LockUnavailable), match="closed"):
        client.lock("report", ttl=60).acquire()
    assert time.monotonic() - began < 1


def test_a_process_that_is_killed_after_its_release_blocks_none(url, start):
    """#412: the node has gone with the release, whatever happens then."""
    process, other = start(url), start(url)
    other.ask("acquire", "another", 60)
    process.ask("acquire", "report", 60)
    assert process.ask("release") is True
    process.signal(signal.SIGKILL)
    began = time.monotonic()
    assert other.ask("acquire", "report", 60) > 0
    assert time.monotonic() - began < SESSION / 2


def test_an_attempt_that_fails_leaves_no_node(make, monkeypatch, session_of):
    """#732: the connection was lost before the failed attempt had removed its node."""
    one, other = make(), make()
    lease = take(one, "report", 60)
    session = session_of()
    children, answers = session.children, iter([_empty()])
    # The attempt sees no node, so it creates one, and finds that it is the second.
    monkeypatch.setattr(session, "children", lambda path: next(answers, None) or children(path))
    monkeypatch.setattr(session, "delete", _lose_once(session))
    assert try_take(other, "report", 60) is None
    monkeypatch.undo()
    eventually(lambda: len(session_nodes(session, "report")) == 1, within=PATIENCE)
    assert release(one, lease) is True
    assert release(other, take(other, "report", 60, wait=1)) is True


def _empty():
    """Return a reply without nodes."""
    reply = Answer()
    reply.set_result([])
    return reply


def _lose_once(session):
    """Return a deletion whose first call is not sent."""
    delete = session.delete
    lost = []

    def delete_or_lose(path):
        if lost:
            return delete(path)
        lost.append(path)
        reply = Answer()
        reply.set_exception(ConnectionLoss())
        return reply

    return delete_or_lose


def session_nodes(session, name):
    """Return the nodes of a lock."""
    with suppress(Exception):
        return session.children(f"{session.ensemble.root}/lock/{name}").result(PATIENCE)
    return []


def test_a_connection_lost_while_the_path_is_made(make, kazoo, root, monkeypatch, session_of):
    """It fails no attempt, as another server answers in time."""
    client = make()
    release(client, take(client, "report", 60))
    kazoo.delete(f"{root}/lock")
    session = session_of()
    make_folder, asked = session.make_folder, []

    def lose_once(path):
        asked.append(path)
        if len(asked) > 1:
            return make_folder(path)
        reply = Answer()
        reply.set_exception(ConnectionLoss())
        return reply

    monkeypatch.setattr(session, "make_folder", lose_once)
    monkeypatch.setattr(session, "make_folder", lose_once)
    assert release(client, take(client, "report", 60)) is True
    assert len(asked) == 2


@pytest.mark.parametrize("luck", [0, 1])
def test_a_new_leader_is_found_soon(monkeypatch, luck):
    """If pauses doubled, an attempt would give up shortly before it is connected."""
    pauses, refusals = [], iter(range(20))
    retry = KazooRetry(**RETRY, sleep_func=pauses.append)
    monkeypatch.setattr("random.uniform", lambda low, high: ((low + high) / 2, high)[luck])

    def dial():
        if next(refusals, None) is not None:
            raise ForceRetryError

    retry(dial)
    for number, pause in enumerate(pauses):
        assert pause <= 0.06 + 0.5 * sum(pauses[:number])
    assert sum(pauses) > 1


@pytest.fixture(params=["create", "create_first"])
def creation(request, kazoo, root):
    """Return each of the two ways in which a node is created, with what makes an attempt take it."""
    directory = f"{root}/lock/report"

    def prepare():
        if request.param == "create":  # in a directory that is there
            kazoo.create(directory)

    return request.param, prepare


def test_a_creation_whose_reply_is_lost_leaves_no_node(make, monkeypatch, creation, session_of):
    """The node is found by its guid, and removed."""
    client, other = make(), make()
    release(client, take(client, "report", 60))
    session = session_of()
    name, prepare = creation
    create = getattr(session, name)
    prepare()
    lost = []

    def lose_the_reply(*arguments):
        lost.append(create(*arguments).result(PATIENCE))
        reply = Answer()
        reply.set_exception(ConnectionLoss())
        monkeypatch.undo()
        return reply

    monkeypatch.setattr(session, name, lose_the_reply)
    lease = take(client, "report", 60, wait=PATIENCE)  # goes on when the node is gone
    assert len(lost) == 1
    assert len(session_nodes(session, "report")) == 1
    assert release(client, lease) is True
    assert release(other, take(other, "report", 60, wait=1)) is True


def test_an_attempt_that_is_interrupted_leaves_no_node(url, monkeypatch, creation, session_of):
    """By a signal while it waits for the reply."""
    with Client("memory://a", locks=url, timeout=5) as client:
        client.lock("report", ttl=60).acquire().release()
        session = session_of()
        name, prepare = creation
        create = getattr(session, name)
        prepare()

        def interrupt(*arguments):
            monkeypatch.undo()
            create(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(session, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.lock("report", ttl=60).acquire()
        eventually(lambda: session_nodes(session, "report") == [], within=PATIENCE)
        assert client.lock("report", ttl=60).acquire(wait=1).release() is True


def test_an_attempt_that_is_cancelled_leaves_no_node(url, session_of):
    """At any moment."""

    async def main():
        async with AsyncClient("memory://a", locks=url, timeout=5) as client:
            lock = client.lock("report", ttl=60)
            await (await lock.acquire()).release()
            for steps in range(20):
                task = asyncio.create_task(lock.try_acquire())
                for _ in range(steps):
                    await asyncio.sleep(0.0003)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    if (lease := await task) is not None:
                        await lease.release()
            await (await lock.acquire(PATIENCE)).release()
            session = session_of()
            await asyncio.to_thread(
                eventually, lambda: session_nodes(session, "report") == [], within=PATIENCE
            )

    asyncio.run(main())


def test_a_node_that_an_operator_removes_is_a_lost_lock(make, session_of):
    """At once; a late release leaves the next holder's alone."""
    client, other = make(), make()
    lease = take(client, "report", 60)
    session = session_of()
    eventually(lambda: not session._unwatched, within=PATIENCE)
    session._due = time.monotonic() + 600  # no beat: the watch tells
    (name,) = session_nodes(session, "report")
    session.delete(f"{session.ensemble.root}/lock/report/{name}").result(PATIENCE)
    eventually(lambda: "node is gone" in repr(lease), within=PATIENCE)
    with pytest.raises(LockLost, match="node is gone"):
        lease.check()
    again = take(other, "report", 60, wait=PATIENCE)
    assert release(client, lease) is False
    assert try_take(client, "report", 60) is None
    assert again.valid


@pytest.mark.parametrize("before", ["beat", "reconnect"])
def test_a_removed_node_is_noticed_at_any_age(make, session_of, before):
    """At once, also after the session has written to it, and has gone to another server."""
    client = make()
    lease = take(client, "report", 60)
    session = session_of()
    eventually(lambda: not session._unwatched, within=PATIENCE)
    session._due = time.monotonic() + 600  # no beat: the watch tells
    (name,) = session_nodes(session, "report")
    path = f"{session.ensemble.root}/lock/report/{name}"
    if before == "beat":
        session.write(path, b"").result(PATIENCE)
    else:
        connected = session.connected()
        session._connection.drop()
        eventually(lambda: session.connected() is not connected, within=PATIENCE)
        session.connected().result(PATIENCE)
    session.words.connect(time.monotonic() + 600, SESSION)  # nor does it end for want of beats
    session.delete(path).result(PATIENCE)
    eventually(lambda: "node is gone" in repr(lease), within=PATIENCE)


def test_a_lock_that_is_released_soon_is_not_watched(make, session_of, monkeypatch):
    """Its watch would delay the release by a request; one that lasts is watched with the next beat."""
    client, watched = make(), []
    release(client, take(client, "first", 60))
    session = session_of()
    watch = session._watch
    monkeypatch.setattr(session, "_watch", lambda node: (watched.append(node), watch(node)))
    turn = session._turn
    monkeypatch.setattr(session, "_turn", lambda: None)
    release(client, take(client, "short", 60))
    lease = take(client, "long", 60)
    turn()
    assert [node.directory.rpartition("/")[2] for node in watched] == ["long"]
    assert (session._unwatched, lease.valid) == (set(), True)


def test_a_silent_server_is_given_up(make, ensemble, session_of):
    """#241: kazoo sends no ping while there are requests, and would wait for ever."""
    client = make(timeout=1.0)
    release(client, take(client, "report", 60))
    port = session_of()._connection.kazoo._connection._socket.getpeername()[1]
    (server,) = [each for each in ensemble.servers if each.port == port]
    server.pause()
    done = threading.Event()

    def request():
        while not done.wait(0.05):
            session_of().stat("/")

    requesting = threading.Thread(target=request)
    requesting.start()

    def acquires():
        with suppress(LockUnavailable):
            return release(client, take(client, "report", 60))
        return False

    try:
        eventually(acquires, within=PATIENCE)
    finally:
        done.set()
        requesting.join()


def test_a_client_of_kazoos_that_has_ended_is_started_again(make, session_of):
    """It ends when an answer makes no sense, and would never connect again."""
    client = make(timeout=1.0)
    lease = take(client, "report", 60)
    session_of()._connection.kazoo.stop()
    eventually(lambda: lease.lost, within=PATIENCE)

    def acquires():
        with suppress(LockUnavailable):
            return release(client, take(client, "report", 60))
        return False

    eventually(acquires, within=PATIENCE)


TTL = 5.0  # seconds, of a lock that may be left


class Interrupted(BaseException):
    """What a signal raises."""


class Writer:
    """Kazoo's end of the pipe to its thread; a signal interrupts one send, before it or after it."""

    def __init__(self, pipe, sends, *, after):
        self._pipe = pipe
        self._left = sends
        self._after = after

    def send(self, data):
        """Pass a byte on, or not, and raise what a signal raises."""
        self._left -= 1
        if self._left or self._after:
            self._pipe.send(data)
        if not self._left:
            raise Interrupted
        return 1

    def close(self):
        """Close the pipe."""
        self._pipe.close()


def acquire_and_release(client, times):
    """Take a lock and release it, again and again."""
    for _ in range(times):
        assert client.lock("report", ttl=60).acquire(PATIENCE).release() is True


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("sends", [1, 2, 3])
def test_an_interrupt_reaches_its_caller_and_harms_no_lock(url, session_of, sends, after):
    """A signal raised while kazoo queued a request: it took that for a closed connection, and died."""
    with Client("memory://a", locks=url, timeout=5) as client:
        kept = client.lock("kept", ttl=60).acquire()
        session = session_of()
        connection = session._connection.kazoo._connection
        pipe = connection._write_sock
        connection._write_sock = Writer(pipe, sends, after=after)
        with pytest.raises(Interrupted):
            acquire_and_release(client, 3)
        connection._write_sock = pipe
        acquire_and_release(client, 3)
        assert (kept.valid, session.expired) == (True, 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of finalizers
def test_interrupts_at_any_moment_leave_no_lock(url, session_of):
    """As of a worker's soft time limit.

    One that comes between the two calls drops the lease. Its lock ends with its ttl.
    """
    signals = []

    def interrupt(number, _):
        signals.append(number)
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Client("memory://a", locks=url, timeout=5) as client:
            kept = client.lock("kept", ttl=60).acquire()
            session = session_of()
            raised = 0
            for number in range(200):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.00005 * (number % 100))
                    client.lock("report", ttl=TTL).acquire(PATIENCE).release()
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Interrupted:
                    raised += 1
            assert raised == len(signals) > 10
            acquire_and_release(client, 1)
            assert (kept.valid, session.expired) == (True, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
