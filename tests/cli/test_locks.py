"""`locks`: who holds which lock, and how an operator takes one away."""

from __future__ import annotations

import json
import re

import pytest

from lock_service import LockService, TellingService, running
from shardcache import Client
from shardcache.clients.base import cluster_of
from shardcache.operations.locks.acquire import break_lock
from shardcache.operations.port import run


@pytest.fixture
def service():
    """Return a service that runs and tells who holds its locks."""
    return TellingService()


@pytest.fixture
def where(service):
    """Return the options that name it."""
    with running(service) as url:
        yield ("--url", "memory://a", "--locks", url)


@pytest.fixture
def holder(where):
    """Return a client that holds two of its locks."""
    with Client("memory://a", locks=where[-1]) as client:
        client.lock("report", ttl=60).acquire()
        client.lock("a b\n", ttl=60).acquire()
        yield client


@pytest.mark.usefixtures("holder")
class TestTelling:
    """A service that can tell."""

    def test_all_locks_are_listed(self, typed, where):
        """With holder, time and fence; control characters are escaped."""
        status, out, _ = typed("locks", *where)
        assert status == 0
        header, first, second = out.splitlines()
        assert header.split() == ["lock", "for", "held", "by", "since", "left", "fence"]
        assert re.fullmatch(r"a b\\n +lock +this test +20\S+T\S+ +\d+\.\d s +2", first)
        assert re.fullmatch(r"report +lock +this test +20\S+T\S+ +\d+\.\d s +1", second)

    def test_one_lock_is_reported_by_its_name(self, typed, where):
        """As JSON too."""
        status, out, _ = typed("locks", "report", *where, "--json")
        (found,) = json.loads(out)
        assert 0 < found.pop("remaining") <= 60
        assert found.pop("since") > 0
        told = {"name": "report", "scope": "lock", "owner": "this test", "fence": 1}
        assert (status, found) == (0, told)

    def test_a_free_lock_is_not_found(self, typed, where):
        """Nor is that of a recompute of the same name."""
        assert typed("locks", "other", *where) == (1, "", "other: not held\n")
        assert typed("locks", "report", "--recompute", *where)[0] == 1
        assert typed("locks", "other", "--json", *where)[:2] == (1, "[]\n")

    def test_locks_of_other_namespaces_are_left_out(self, typed, where):
        """Their names would not be those of this client."""
        where = ("--url", "memory://a?namespace=shop", *where[2:])
        assert typed("locks", *where)[:2] == (0, "no lock is held\n")

    def test_a_lock_is_taken_away(self, typed, where, service):
        """With `--yes`, without a question."""
        answer = typed("locks", "--break", "report", "--yes", *where)
        assert answer == (0, "report: taken away\n", "")
        assert [name for _, name in service.held] == [b"a b\n"]
        answer = typed("locks", "--break", "report", "--yes", *where)
        assert answer == (1, "", "report: not held\n")
        status, out, _ = typed("locks", "--break", "a b\n", "--yes", "--json", *where)
        assert (status, json.loads(out)) == (0, {"name": "a b\n", "broken": True})

    def test_nothing_is_taken_away_without_a_confirmation(self, typed, where, service):
        """A script has to say `--yes`."""
        for more in ((), ("--json",)):
            status, *told = typed("locks", "--break", "report", *more, *where, stdin="y\n")
            assert (status, "--yes" in "".join(told)) == (2, True)
        assert len(service.held) == 2

    def test_a_name_to_show_and_one_to_take_away_are_too_many(self, typed, where):
        """The command does one or the other."""
        status, _, errors = typed("locks", "report", "--break", "report", *where)
        assert (status, "not both" in errors) == (2, True)

    @pytest.mark.parametrize("answer", [True, False])
    def test_a_lock_is_taken_away_after_a_question(self, typed, where, monkeypatch, answer):
        """It names the lock, its holder and since when."""
        asked = []

        def confirm(question, **_):
            asked.append(question)
            return answer

        monkeypatch.setattr("shardcache.cli.locks.click.confirm", confirm)
        monkeypatch.setattr("shardcache.cli.locks._can_ask", lambda: True)
        assert typed("locks", "--break", "report", *where)[0] == (0 if answer else 1)
        assert re.fullmatch(r"take the lock report away from this test since 20\S+\?", *asked)
        assert typed("locks", "report", *where)[0] == (1 if answer else 0)

    def test_the_next_holder_keeps_the_lock(self, typed, where, holder, monkeypatch):
        """The question was about another one, and the answer took long."""
        next_holder = []

        def confirm(_question, **_):
            with Client("memory://a", locks=where[-1]) as operator:
                run(lambda: break_lock(cluster_of(operator), "report"))
            next_holder.append(holder.lock("report", ttl=60).acquire())
            return True

        monkeypatch.setattr("shardcache.cli.locks.click.confirm", confirm)
        monkeypatch.setattr("shardcache.cli.locks._can_ask", lambda: True)
        status, _, errors = typed("locks", "--break", "report", *where)
        assert (status, errors) == (1, "report: another client holds it now; not taken away\n")
        assert [lease.valid for lease in next_holder] == [True]


def test_cache_nodes_tell_of_a_lock_by_its_name(typed, memcached_servers):
    """They cannot list their locks, and the error says how to ask."""
    urls = [server.url for server in memcached_servers]
    where = ("--url", " ".join(urls))
    status, _, errors = typed("locks", *where)
    assert (status, "name the lock" in errors) == (1, True)
    assert typed("locks", "report", *where)[0] == 1
    with Client(urls) as client:
        lease = client.lock("report", ttl=60).acquire()
        status, out, _ = typed("locks", "report", *where)
        assert status == 0
        assert re.fullmatch(r"report +lock +\d+\.\d s", out.splitlines()[1].rstrip())
        assert typed("locks", "--break", "report", "--yes", *where)[0] == 0
        assert lease.release() is False
        assert client.lock("report").try_acquire() is not None


def test_a_service_that_cannot_tell_says_so(typed):
    """Instead of a list without locks."""
    with running(LockService()) as url:
        status, _, errors = typed("locks", "--url", "memory://a", "--locks", url)
    assert (status, "cannot tell who holds a lock" in errors) == (1, True)
