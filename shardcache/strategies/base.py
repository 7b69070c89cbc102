"""What the strategies share: checked options, and placements as values."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, TypeAlias

from shardcache.core.placement.hashing import hash_tag
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.strategy import HashRanges
from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError

Owner: TypeAlias = Callable[[bytes], Node]
Owners: TypeAlias = Callable[[Sequence[bytes]], Iterable[Node]]
Preference: TypeAlias = Callable[[bytes, int], Sequence[Node]]
Value: TypeAlias = str | int | bool

TRUE: Final = ("true", "yes", "on", "1")
FALSE: Final = ("false", "no", "off", "0")


@dataclass(frozen=True)
class BuiltPlacement:
    """A placement built from functions.

    `inputs` returns everything that decides the placement, and is called at the first use of
    `digest`. `hash_ranges` returns the placement as ranges of the hash space, if it is made of them.
    `owners` returns what `owner` does for each of many keys, if that takes less than a call for each.
    """

    owner: Owner
    preference: Preference
    inputs: Callable[[], Iterable[bytes]]
    hash_ranges: Callable[[], HashRanges | None] = lambda: None
    owners: Owners | None = None

    @cached_property
    def digest(self) -> bytes:
        """Return a digest of everything that decides placement; computed at first use."""
        machine = hashlib.blake2b(digest_size=16)
        for part in self.inputs():
            machine.update(len(part).to_bytes(4, "big") + part)
        return machine.digest()


class StrategyBase(ABC):
    """A strategy with options, each with a few allowed values; its name lists those that were set.

    Every strategy has the option `hash_tags`: only the text between the first `{` and the next `}`
    is hashed, unless it is empty, so that keys with the same tag share a node.
    """

    registered: ClassVar[str]
    hashes_namespace: ClassVar[bool] = True
    choices: ClassVar[Mapping[str, Sequence[Value]]] = {}  # the first of each is the default
    always_tags: ClassVar[bool] = False

    def __init__(self, **options: Any) -> None:  # texts from settings, or natural types
        """Check the options; raise `ConfigurationError` listing all that are unknown or bad."""
        tags = (True,) if self.always_tags else (False, True)
        known: dict[str, Sequence[Value]] = {**self.choices, "hash_tags": tags}
        faults = tuple(_faults(options, known))
        if faults:
            raise ConfigurationError(*(f"strategy {self.registered!r}{fault}" for fault in faults))
        self._defaults: dict[str, Value] = {name: values[0] for name, values in known.items()}
        self.options: dict[str, Value] = dict(self._defaults)
        for name, value in options.items():
            self.options[name] = _matching(value, known[name])[0]

    @property
    def name(self) -> str:
        """Return the registered name with the options that differ from their defaults."""
        chosen = ",".join(
            f"{name}={_text(value)}"
            for name, value in sorted(self.options.items())
            if value != self._defaults[name]
        )
        return f"{self.registered}:{chosen}" if chosen else self.registered

    def build(self, nodes: Sequence[Node]) -> BuiltPlacement:
        """Return the placement of all keys on `nodes`; raise `TopologyError` if that is impossible."""
        placement = self.place(tuple(nodes))
        return _by_hash_tag(placement) if self.options["hash_tags"] else placement

    @abstractmethod
    def place(self, nodes: Sequence[Node]) -> BuiltPlacement:
        """Return the placement of all keys on `nodes`, by all of a key's bytes."""

    def check_change(  # noqa: B027 - most follow any change, and have nothing to add
        self, before: Sequence[Node], after: Sequence[Node]
    ) -> None:
        """Accept any change of nodes."""

    def __repr__(self) -> str:
        return f"<strategy {self.name}>"


def _faults(options: Mapping[str, object], known: Mapping[str, Sequence[Value]]) -> Iterator[str]:
    for name, value in options.items():
        if name not in known:
            yield f" has no option {redact(name)} (known: {', '.join(sorted(known))})"
        elif not _matching(value, known[name]):
            listed = ", ".join(map(_text, known[name]))
            yield f": {name} must be one of {listed}"


def _matching(value: object, known: Sequence[Value]) -> Sequence[Value]:
    """Return the one of `known` that equals `value` or its text; empty if there is none."""
    text = _text(value).lower()
    if isinstance(known[0], bool):
        text = "true" if text in TRUE else "false" if text in FALSE else text
    return [each for each in known if _text(each).lower() == text]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _by_hash_tag(placement: BuiltPlacement) -> BuiltPlacement:
    """Return the placement that hashes only a key's tag."""
    owner, preference = placement.owner, placement.preference
    return BuiltPlacement(
        owner=lambda key: owner(hash_tag(key)),
        preference=lambda key, count: preference(hash_tag(key), count),
        inputs=lambda: (b"hash tags", placement.digest),
        hash_ranges=placement.hash_ranges,
    )


def digest_parts(nodes: Iterable[Node]) -> Iterator[bytes]:
    """Yield names and weights of `nodes`, for a digest."""
    for node in nodes:
        yield node.name.encode()
        yield float(node.weight).hex().encode()


def split_port(node: Node) -> tuple[str, str]:
    """Return the host and port in a node's *name*, so that its address may change; port "" if none.

    A name that is not `host:port` or `[v6]:port` is returned whole as the host.
    """
    host, colon, port = node.name.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not (colon and host and port.isdecimal()) or (":" in host and not bracketed):
        return node.name, ""
    return (host[1:-1] if bracketed else host), port


def preference_by_rehashing(owner: Owner, nodes: Sequence[Node]) -> Preference:
    """Return a preference function that hashes a key with salts until enough nodes are found.

    If many salts find no new node (one of tiny weight), the rest follow in order of their names.
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
