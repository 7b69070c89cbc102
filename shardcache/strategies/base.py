"""What the strategies share: options read strictly, placements as values."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, TypeAlias

from shardcache.core.hashing import hash_tag
from shardcache.core.nodes import Node
from shardcache.core.strategy import HashRanges
from shardcache.core.urls import shown
from shardcache.errors import ConfigurationError

Owner: TypeAlias = Callable[[bytes], Node]
Preference: TypeAlias = Callable[[bytes, int], Sequence[Node]]
Value: TypeAlias = str | int | bool

TRUE: Final = ("true", "yes", "on", "1")
FALSE: Final = ("false", "no", "off", "0")


@dataclass(frozen=True)
class Placed:
    """A placement made of its parts.

    `inputs` gives all that decides it, and is read at the first use of `digest`; `hash_ranges` gives it as
    runs of the hash space.
    """

    owner: Owner
    preference: Preference
    inputs: Callable[[], Iterable[bytes]]
    hash_ranges: Callable[[], HashRanges | None] = lambda: None

    @cached_property
    def digest(self) -> bytes:
        """Return a digest of all that decides placement; computed at first use."""
        machine = hashlib.blake2b(digest_size=16)
        for part in self.inputs():
            machine.update(len(part).to_bytes(4, "big") + part)
        return machine.digest()


class StrategyBase(ABC):
    """A strategy made from options, each one of a few values, and named by those it was given.

    All have the option `hash_tags`: with it only what stands between the first `{` and the first
    `}` after it is hashed, when that is not empty, so that keys of one tag share a node.
    """

    registered: ClassVar[str]
    hashes_namespace: ClassVar[bool] = True
    choices: ClassVar[Mapping[str, Sequence[Value]]] = {}  # the first of each is the default
    always_tags: ClassVar[bool] = False

    def __init__(self, **options: Any) -> None:  # texts from settings, or natural types
        """Read the options; raise `ConfigurationError` listing all that are unknown or bad."""
        tags = (True,) if self.always_tags else (False, True)
        known: dict[str, Sequence[Value]] = {**self.choices, "hash_tags": tags}
        faults = tuple(_faults(options, known))
        if faults:
            raise ConfigurationError(*(f"strategy {self.registered!r}{fault}" for fault in faults))
        self._defaults: dict[str, Value] = {name: values[0] for name, values in known.items()}
        self.options: dict[str, Value] = dict(self._defaults)
        for name, value in options.items():
            self.options[name] = _spelled(value, known[name])[0]

    @property
    def name(self) -> str:
        """Return the registered name with the options that differ from their defaults."""
        chosen = ",".join(
            f"{name}={_text(value)}"
            for name, value in sorted(self.options.items())
            if value != self._defaults[name]
        )
        return f"{self.registered}:{chosen}" if chosen else self.registered

    def build(self, nodes: Sequence[Node]) -> Placed:
        """Place every key on `nodes`; raise `TopologyError` for nodes that cannot be placed."""
        placed = self.place(tuple(nodes))
        return _tagged(placed) if self.options["hash_tags"] else placed

    @abstractmethod
    def place(self, nodes: Sequence[Node]) -> Placed:
        """Place every key on `nodes`, by all of its bytes."""

    def check_change(  # noqa: B027 - most follow any change, and have nothing to add
        self, before: Sequence[Node], after: Sequence[Node]
    ) -> None:
        """Accept the change: any node may come or leave."""

    def __repr__(self) -> str:
        return f"<strategy {self.name}>"


def _faults(options: Mapping[str, object], known: Mapping[str, Sequence[Value]]) -> Iterator[str]:
    for name, value in options.items():
        if name not in known:
            yield f" has no option {shown(name)} (known: {', '.join(sorted(known))})"
        elif not _spelled(value, known[name]):
            listed = ", ".join(map(_text, known[name]))
            yield f": {name} must be one of {listed}"


def _spelled(value: object, known: Sequence[Value]) -> Sequence[Value]:
    """Return those of `known`, one or none, that `value` is or spells."""
    spelled = _text(value).lower()
    if isinstance(known[0], bool):
        spelled = "true" if spelled in TRUE else "false" if spelled in FALSE else spelled
    return [each for each in known if _text(each).lower() == spelled]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tagged(placed: Placed) -> Placed:
    """Return the placement that hashes a key by its tag."""
    owner, preference = placed.owner, placed.preference
    return Placed(
        owner=lambda key: owner(hash_tag(key)),
        preference=lambda key, count: preference(hash_tag(key), count),
        inputs=lambda: (b"hash tags", placed.digest),
        hash_ranges=placed.hash_ranges,
    )


def described(nodes: Iterable[Node]) -> Iterator[bytes]:
    """Return names and weights of `nodes`, for a digest."""
    for node in nodes:
        yield node.name.encode()
        yield float(node.weight).hex().encode()


def split_port(node: Node) -> tuple[str, str]:
    """Return host and port of a node by its *name*, so that its address may change; port "" if none.

    A name of another form than `host:port` or `[v6]:port` is a host as it is.
    """
    host, colon, port = node.name.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not (colon and host and port.isdecimal()) or (":" in host and not bracketed):
        return node.name, ""
    return (host[1:-1] if bracketed else host), port


def rehashed(owner: Owner, nodes: Sequence[Node]) -> Preference:
    """Return the preference order of a strategy without one: hash again with a salt until a new node.

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
