"""The callers of single rows: what they are there to notice, they notice."""

from __future__ import annotations

import logging
import socket

import pytest

from faults import misconfigured
from faults.contending import Witness
from faults.edges import TaskEdges, ThreadEdges
from faults.interrupting import Bystanders
from faults.lies import ENDLESS, lies
from faults.misconfigured import KEY, PASSWORD, SECRETS, Addresses, Shown, configurations
from faults.planting import RawMemcached, RawRedis, Stored
from faults.players import Part
from faults.reading import BATCH, Judge, Turns


class Lease:
    """A lease that holds or not."""

    def __init__(self, *, valid: bool) -> None:
        self.valid = valid


class TestContending:
    """What the witness of a lock sees."""

    def test_two_holders_at_once_are_seen(self):
        """Whoever came first."""
        witness = Witness(10)
        witness.enter(Lease(valid=True))
        witness.enter(Lease(valid=True))
        assert witness.tally == {"acquired": 2, "double": 1}

    def test_one_after_the_other_is_right(self):
        """Also after one whose lease had ended before it left."""
        witness = Witness(10)
        first, ended = Lease(valid=True), Lease(valid=False)
        witness.enter(first)
        witness.leave(first)
        witness.enter(ended)
        witness.enter(Lease(valid=True))
        assert witness.tally == {"acquired": 3, "double": 0}

    def test_it_goes_on_until_there_were_enough(self):
        """Or until nobody has acquired it for a while."""
        witness = Witness(1)
        assert witness.goes_on()
        witness.enter(Lease(valid=True))
        assert not witness.goes_on()


class TestReading:
    """What is told from keys whose values never change."""

    def test_another_keys_value_is_mixed_up(self):
        """As is what no key has."""
        judge = Judge(300)
        (one, its), (_, other) = list(judge.values.items())[:2]
        judge.judge({one: its})
        assert judge.tally == {"found": 1}
        judge.judge({one: other})
        judge.judge({one: ["a list"]})
        assert judge.tally == {"found": 3, "mixed": 2}

    def test_missing_keys_are_written_with_their_values(self):
        """The others are left alone."""
        judge = Judge(300)
        keys = list(judge.values)[:3]
        assert judge.missing(keys, {keys[0]: "any"}) == {key: judge.values[key] for key in keys[1:]}

    def test_enough_is_enough(self):
        """A batch has as many keys as it should, until the end."""
        judge = Judge(300)
        turns = Turns(judge, 1, wanted=2)
        assert len(set(turns.next())) == BATCH
        judge.tally["found"] = 2
        assert turns.next() is None


class TestBystanders:
    """Descriptors that the client has nothing to do with."""

    @pytest.fixture
    def bystanders(self):
        """Return some, which are closed at the end."""
        made = Bystanders()
        yield made
        for pair in made._pairs:
            for one in pair:
                one.close()

    def test_those_left_alone_are_unharmed(self, bystanders):
        """Also those that were replaced."""
        bystanders.replace(3)
        assert bystanders.check_all() == 0

    @pytest.mark.parametrize("side", [0, 1])
    def test_one_that_was_written_to_is_harmed(self, bystanders, side):
        """Either of the two."""
        bystanders._pairs[3][side].send(b"x")
        assert bystanders.check_all() == 1

    def test_one_that_was_closed_is_harmed(self, bystanders):
        """Even if its number stands for another socket now."""
        one = bystanders._pairs[3][0]
        other = socket.socket()
        number = one.detach()
        socket.close(number)
        bystanders._pairs[3] = (socket.socket(fileno=other.detach()), bystanders._pairs[3][1])
        assert bystanders.check_all() == 1


class TestLies:
    """Replies that no server gives."""

    @pytest.mark.parametrize("kind", ["memcached", "redis"])
    def test_they_are_as_many_as_wanted_and_the_same_each_time(self, kind):
        """Those without an end among them."""
        told = list(lies(kind, 600, 1))
        assert len(told) == 600
        assert told == list(lies(kind, 600, 1)) != list(lies(kind, 600, 2))
        assert sum(lie.floods for lie in told) == len(ENDLESS[kind])

    @pytest.mark.parametrize("kind", ["memcached", "redis"])
    def test_none_is_a_whole_value(self, kind):
        """A client would be right to believe it."""
        hit = {"memcached": b"VA 1 f0 O1\r\na\r\n", "redis": b"+OK\r\n"}[kind]
        assert not any(lie.reply.startswith(hit) for lie in lies(kind, 5_000, 1))


class TestPlanting:
    """What is written behind a client's back."""

    def test_each_bit_is_flipped_once(self):
        """Those of memcached's flags too; on Redis all but those of a write's number."""
        stored = Stored(5, bytes(12))
        altered = list(RawMemcached.altered(None, stored))
        assert len(set(altered)) == len(altered) == 32 + 8 * 12
        altered = list(RawRedis.altered(None, stored))
        assert len(set(altered)) == len(altered) == 8 * 4
        assert stored not in altered

    @pytest.mark.parametrize("raw", [RawMemcached, RawRedis])
    def test_what_is_written_is_read(self, raw, memcached_servers, redis_servers):
        """Byte for byte."""
        server = (redis_servers if raw is RawRedis else memcached_servers)[0]
        connection = raw(server.url)
        each = [Stored(0, b"a\r\nb"), connection.marked(7, b""), *connection.foreign(b"x")]
        planted = {f"raw:{number}": stored for number, stored in enumerate(each)}
        connection.write(planted)
        assert {key: connection.read(key) for key in planted} == planted
        connection.close()


class TestSecrets:
    """What is shown of configurations that fail."""

    def test_a_secret_is_noticed_wherever_it_is_shown(self):
        """In a cause, a group, a note, a log line; in no other text."""
        for error in (
            chained(ValueError("no"), KeyError(PASSWORD)),
            ExceptionGroup("many", [ValueError(PASSWORD)]),
            noted(ValueError("no"), PASSWORD),
        ):
            shown = Shown()
            shown.add_error(error)
            assert shown.secrets() == {PASSWORD}
        shown = Shown()
        shown.emit(logging.LogRecord("x", 10, __file__, 1, "key %s", (KEY,), None))
        assert shown.secrets() == {KEY}
        shown = Shown()
        shown.add_error(ValueError("no"))
        assert shown.secrets() == set()

    def test_variables_of_a_cause_are_searched(self):
        """But for the rig's own, which hold the secrets that it looks for."""
        for file, secrets in (("elsewhere.py", {PASSWORD}), (misconfigured.__file__, set())):
            shown = Shown()
            shown.add_error(chained(ValueError("no"), raised_in(file)))
            assert shown.secrets() == secrets

    def test_each_configuration_has_a_secret(self):
        """Else it could show none."""
        made = configurations(Addresses("h:1", "h:2", "h:3", "h:4"))
        assert len(made) >= 30
        for each in made.values():
            assert any(secret in repr(each) for secret in SECRETS)


def raised_in(file):
    """Return an error with a secret among the variables of a function that a file has."""
    found = {}
    exec(compile("def fail(secret):\n    raise KeyError('k')", file, "exec"), found)
    try:
        found["fail"](PASSWORD)
    except KeyError as error:
        return error


def chained(error, cause):
    """Return an error with a cause."""
    error.__cause__ = cause
    return error


def noted(error, note):
    """Return an error with a note."""
    error.add_note(note)
    return error


class TestEdges:
    """What is compared between servers."""

    @pytest.mark.parametrize("caller", [ThreadEdges, TaskEdges])
    def test_memory_is_like_memory(self, caller):
        """Each edge has the same outcome on two nodes, and some of each subject are refused."""
        edges = caller(Part(urls=("memory://other",), workers=1, timeout=5.0))
        for subject, count in edges.edges().items():
            assert count > 15
            refused = 0
            for place in range(count):
                edges.prepare(subject, place)
                outcome = edges.meet(subject, place)
                _, expected = edges.expect(subject, place)
                assert outcome == expected or expected.words == "ValueTooLargeError"
                refused += outcome.refused
            assert 0 < refused < count
