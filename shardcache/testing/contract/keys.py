"""The backend contract: any key, and many keys at once."""

from __future__ import annotations

from typing import Any

import pytest

from shardcache import InvalidKeyError
from shardcache.core.commands import DeleteMany, GetMany, SetMany
from shardcache.testing.contract.base import Ask, ContractFixtures

EDGE_KEYS: tuple[str | bytes, ...] = (
    "plain",
    "a" * 250,
    "a" * 251,
    "a" * 5000,
    "with space",
    "new\r\nline",
    "get x\r\nflush_all\r\n",
    "tab\tand\x00nul",
    "naïve-日本-🐍",
    b"\xff\xfe\x00raw",
    b" ",
    "{tag}rest",
    "~sc:reserved",
    "%s%d",
)


class KeyContract(ContractFixtures):
    """Any `str` or `bytes` is a key, alone and in a batch."""

    @pytest.mark.parametrize("key", EDGE_KEYS, ids=repr)
    def test_any_key_is_legal(self, client: Any, key: str | bytes) -> None:
        """A key with any characters is one key, never a command."""
        assert client.set("witness", "there")
        assert client.get(key) is None
        assert client.set(key, "mine")
        assert client.get(key) == "mine"
        assert client.get_many([key, "witness"]) == {key: "mine", "witness": "there"}
        assert client.delete(key) is True
        assert client.get(key) is None
        assert client.get("witness") == "there"

    def test_long_keys_that_differ_at_the_end_are_two(self, client: Any) -> None:
        """No key is truncated."""
        client.set_many({"k" * 300 + "1": 1, "k" * 300 + "2": 2})
        assert client.get("k" * 300 + "1") == 1
        assert client.get("k" * 300 + "2") == 2

    def test_text_and_bytes_of_a_key_are_one_key(self, client: Any) -> None:
        """`"é"` and its UTF-8 bytes name the same value."""
        client.set("é", 1)
        assert client.get("é".encode()) == 1

    @pytest.mark.parametrize("key", ["", b"", None, 5, ("a",)], ids=repr)
    def test_invalid_keys_are_refused(self, client: Any, key: Any) -> None:
        """Empty keys and other types raise in every call."""
        for call in (client.get, client.delete, lambda key: client.get_many(["fine", key])):
            with pytest.raises(InvalidKeyError):
                call(key)
        with pytest.raises(InvalidKeyError):
            client.set(key, 1)

    def test_delete_returns_whether_the_key_existed(self, client: Any) -> None:
        """Deleting counts each key that existed, once."""
        client.set_many({"a": 1, "b": 2, "c": 3})
        assert client.delete("a") is True
        assert client.delete("a") is False
        assert client.delete_many(iter(["a", "b", "c", "b"])) == 2
        assert client.get_many(["a", "b", "c"]) == {}

    def test_many_keys_at_once(self, client: Any) -> None:
        """A batch of thousands of keys is answered completely."""
        items = {f"key:{number}": number for number in range(5000)}
        assert client.set_many(items) == []
        assert client.get_many(items) == items
        assert client.delete_many(items) == len(items)

    def test_empty_batches(self, client: Any, ask: Ask) -> None:
        """A batch without keys returns nothing."""
        for command in (GetMany([]), SetMany([]), DeleteMany([])):
            assert ask(command) == []
        assert client.get_many([]) == {}
        assert client.set_many({}) == []
        assert client.delete_many(()) == 0
