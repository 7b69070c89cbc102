"""The backend contract: values, and changes that depend on the stored one."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from shardcache.core.capabilities import CAS
from shardcache.testing.contract.base import ContractFixtures, requires

EDGE_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    7,
    2**63 - 1,
    2**64,
    -(2**200),
    0.0,
    -1.5,
    math.inf,
    "",
    "text",
    "日本🐍",
    "12",
    b"",
    b"\x00\xff\r\n",
    b"12",
    [],
    [1, "two", b"three", None],
    (),
    (1, (2, (3,))),
    {},
    {"a": 1, 2: "b", (3, 4): {"c": {5}}},
    {1, 2},
    frozenset({"x"}),
    date(2026, 2, 28),
    datetime(2026, 2, 28, 12, 30, 1, 5),  # noqa: DTZ001 - naive ones are values too
    datetime(2026, 2, 28, 12, 30, 1, 5, tzinfo=UTC),
    timedelta(days=-3, microseconds=7),
    Decimal("1.10"),
    uuid.UUID(int=5),
    b"v" * 100_000,
)


class ValueContract(ContractFixtures):
    """Values come back equal; `add`, `replace`, `delete` and `cas` mean the same everywhere."""

    @pytest.mark.parametrize("value", EDGE_VALUES, ids=lambda value: repr(value)[:40])
    def test_values_come_back_equal(self, client: Any, value: Any) -> None:
        """A hit equals the stored value, with its type, alone and in a batch."""
        assert client.set("one", value)
        assert client.set_many({"two": value, "three": [value]}) == []
        found = client.get_many(["one", "two", "three"])
        assert found == {"one": value, "two": value, "three": [value]}
        assert {type(found["one"]), type(found["two"]), type(found["three"][0])} == {type(value)}
        assert type(client.get("one", default="missing")) is type(value)

    def test_a_miss_is_the_default(self, client: Any) -> None:
        """A missing key reads as the default; a stored `None` does not."""
        default = object()
        client.set("none", None)
        assert client.get("missing", default) is default
        assert client.get("none", default) is None
        assert client.get_many(["missing", "none"]) == {"none": None}

    def test_add_and_replace(self, client: Any) -> None:
        """`add` stores only if the key is missing, `replace` only if it exists."""
        assert client.replace("k", 1) is False
        assert client.get("k") is None
        assert client.add("k", 2) is True
        assert client.add("k", 3) is False
        assert client.get("k") == 2
        assert client.replace("k", 4) is True
        assert client.get("k") == 4

    @requires(CAS)
    def test_compare_and_set(self, client: Any) -> None:
        """`cas` stores only on the value that was read."""
        client.set("k", "old")
        value, token = client.gets("k")
        assert value == "old"
        assert client.cas("k", "new", token) is True
        assert client.cas("k", "late", token) is False
        for foreign in (0, -1, 2**64, b"0", b"9" * 21, b"%d" % 2**64, "text", None, True):
            assert client.cas("k", "late", foreign) is False
        assert client.get("k") == "new"
        _, token = client.gets("k")
        client.delete("k")
        assert client.cas("k", "ghost", token) is None
        assert client.get("k") is None
        assert client.gets("k", "default") == ("default", None)

    @requires(CAS)
    @pytest.mark.parametrize("value", ["free", b"free", [1], None, "", 7, 0, -7], ids=repr)
    def test_changed_and_changed_back_is_changed(self, client: Any, value: Any) -> None:
        """A token stands for one write, not for an equal value."""

        def swap() -> None:
            _, token = client.gets("k")
            assert client.cas("k", value, token) is True

        def store_again() -> None:
            client.delete("k")
            assert client.add("k", value) is True

        changes: tuple[Callable[[], Any], ...] = (
            lambda: client.set("k", value),
            lambda: client.replace("k", value),
            lambda: client.set_many({"k": value}),
            swap,
            store_again,
        )
        for change in changes:
            client.set("k", value)
            _, token = client.gets("k")
            change()
            assert client.cas("k", "late", token) is False
            assert client.get("k") == value
            _, token = client.gets("k")
            assert client.cas("k", "next", token) is True
