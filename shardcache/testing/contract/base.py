"""Fixtures of the backend contract: a client, its node, and commands to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from shardcache.core.commands import Command
from shardcache.core.values.flags import RAW_FLAGS
from shardcache.operations.cluster.members import Member
from shardcache.operations.port import step
from shardcache.testing.driving import MODES, Mode, make_client

NAME, PROBE = b"name", b"probe"

VALUE, OTHER = (RAW_FLAGS, b"value"), (RAW_FLAGS, b"other")

Ask = Callable[[Command], Any]

T = TypeVar("T")


def requires(*capabilities: frozenset[type]) -> Callable[[T], T]:
    """Return a decorator: the test is skipped for a backend that does not support these."""

    def mark(test: T) -> T:
        test.requires = frozenset().union(*capabilities)  # type: ignore[attr-defined]  # a function
        return test

    return mark


class ContractFixtures:
    """Fixtures for both clients, each with one empty node."""

    @pytest.fixture(params=MODES)
    def mode(self, request: pytest.FixtureRequest) -> Mode:
        """Return each of the two kinds of client in turn."""
        mode: Mode = request.param
        return mode

    @pytest.fixture
    def client(self, mode: Mode, url: str) -> Iterator[Any]:
        """Return a client of one empty node; it raises the errors of its node."""
        client = make_client(mode, url, on_error="raise", timeout=5)
        yield client
        client.close()

    @pytest.fixture
    def member(self, client: Any) -> Member:
        """Return the one node as the client knows it."""
        member: Member
        (member,) = client._cluster.members.values()  # noqa: SLF001 - some commands have no call
        return member

    @pytest.fixture
    def ask(self, client: Any, mode: Mode, member: Member) -> Ask:
        """Return a function that sends one command to the node and returns its reply."""

        async def send(command: Command) -> Any:  # the reply is of the command's type
            return await client._cluster.ask(member, command)  # noqa: SLF001 - as above

        if mode == "blocking":
            return lambda command: step(send(command))
        return lambda command: client.loop.run_until_complete(send(command))

    @pytest.fixture(autouse=True)
    def _skip_unsupported(self, request: pytest.FixtureRequest) -> None:
        needed: frozenset[type] = getattr(request.function, "requires", frozenset())
        missing = needed and needed - request.getfixturevalue("member").supports
        if missing:
            names = sorted(command.__name__ for command in missing)
            pytest.skip(f"the backend does not support {', '.join(names)}")
