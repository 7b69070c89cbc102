"""What the strategies share: options read strictly, placements as values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from shardcache.core.hashing import hash_tag
from shardcache.core.nodes import Node
from shardcache.core.strategy import Placement
from shardcache.errors import ConfigurationError

Owner = Callable[[bytes], Node]
Preference = Callable[[bytes, int], Sequence[Node]]


@dataclass(frozen=True)
class Placed:
    """A placement made of its parts; `inputs` gives what decides it, read for the digest alone."""

    owner: Owner
    preference: Preference
    inputs: Callable[[], Iterable[bytes]]

    @cached_property
    def digest(self) -> bytes:
        """Give a digest of all that decides placement; computed at first use."""
        machine = hashlib.blake2b(digest_size=16)
        for part in self.inputs():
            machine.update(len(part).to_bytes(4, "big") + part)
        return machine.digest()


class StrategyBase:
    """A strategy with the option that all have, `hash_tags`, and its name with its options.

    With `hash_tags` only what stands between the first `{` and the first `}` after it is hashed,
    so that keys of one tag share a node.
    """

    registered: ClassVar[str]
    hashes_namespace: ClassVar[bool] = True

    def __init__(self, *, hash_tags: str | bool = False, **unknown: Any) -> None:  # refused
        refuse_unknown(self.registered, unknown, self.options())
        self.hash_tags = read_bool(self.registered, "hash_tags", hash_tags)

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Give the names of the options."""
        return ("hash_tags",)

    def chosen(self) -> dict[str, object]:
        """Give the options that differ from their defaults."""
        return {"hash_tags": "true"} if self.hash_tags else {}

    @property
    def name(self) -> str:
        """Give the registered name with the options that differ from their defaults."""
        chosen = ",".join(f"{key}={value}" for key, value in sorted(self.chosen().items()))
        return f"{self.registered}:{chosen}" if chosen else self.registered

    def build(self, nodes: Sequence[Node]) -> Placement:
        """Place every key on `nodes`."""
        placed = self.place(nodes)
        if not self.hash_tags:
            return placed
        owner, preference = placed.owner, placed.preference
        return Placed(
            owner=lambda key: owner(hash_tag(key)),
            preference=lambda key, count: preference(hash_tag(key), count),
            inputs=lambda: (b"hash_tags", placed.digest),
        )

    def place(self, nodes: Sequence[Node]) -> Placed:
        """Place every key on `nodes`, hash tags aside."""
        raise NotImplementedError

    def check_change(self, before: Sequence[Node], after: Sequence[Node]) -> None:
        """Accept the change: any node may come or leave."""

    def __repr__(self) -> str:
        return f"<strategy {self.name}>"


def refuse_unknown(strategy: str, unknown: dict[str, Any], known: Sequence[str]) -> None:
    """Raise `ConfigurationError` for options that the strategy does not have."""
    if unknown:
        given = ", ".join(map(repr, sorted(unknown)))
        raise ConfigurationError(
            f"strategy {strategy!r} has no option {given} (known: {', '.join(sorted(known))})"
        )


def read_bool(strategy: str, option: str, value: str | bool) -> bool:
    """Read an option that is true or false."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        return value if isinstance(value, bool) else known[value.lower()]
    except (KeyError, AttributeError):
        raise ConfigurationError(
            f"strategy {strategy!r}: {option} is true or false, not {value!r}"
        ) from None


def read_choice(strategy: str, option: str, value: Any, known: Iterable[Any]) -> Any:
    """Read an option that is one of a few, given as itself or as its text."""
    choices = {str(choice): choice for choice in known}
    try:
        return choices[str(value)]
    except KeyError:
        listed = ", ".join(choices)
        raise ConfigurationError(
            f"strategy {strategy!r}: {option} {value!r} is not known (known: {listed})"
        ) from None


def described(nodes: Iterable[Node]) -> Iterable[bytes]:
    """Give names and weights of `nodes`, for a digest."""
    for node in nodes:
        yield node.name.encode()
        yield float(node.weight).hex().encode()


def rehashed(owner: Owner, nodes: Sequence[Node]) -> Preference:
    """Give the preference order of a strategy without one: hash again with a salt until a new node.

    After many salts without a new node (one of tiny weight), the rest follow in order of name.
    """

    def preference(key: bytes, count: int) -> Sequence[Node]:
        wanted = min(count, len(nodes))
        found = dict.fromkeys([owner(key)][:wanted])
        for salt in range(1, 20 * len(nodes)):
            if len(found) >= wanted:
                return list(found)
            found.setdefault(owner(salt.to_bytes(4, "big") + key))
        found.update(dict.fromkeys(sorted(nodes, key=lambda node: node.name)))
        return list(found)[:wanted]

    return preference
