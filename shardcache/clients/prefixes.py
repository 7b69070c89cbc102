"""Which functions use which prefix of keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shardcache.errors import ConfigurationError
from shardcache.operations.cluster.cluster import Cluster

if TYPE_CHECKING:  # loaded with the first cached function
    from shardcache.clients.fingerprints import Fingerprint
    from shardcache.clients.key_builder import KeyBuilder


class PrefixRegistry:
    """The key prefixes of functions: no two functions may share one."""

    def __init__(self, *, nodes_known: bool = True) -> None:
        self._nodes_known = nodes_known
        self._known: dict[str, tuple[str, Fingerprint]] = {}

    def claim(self, keys: KeyBuilder, cluster: Callable[[], Cluster]) -> None:
        """Reserve a function's prefix.

        Raise `ConfigurationError` when another function has it, whose values would be served: a
        function with another name, other code or another closure. A function that was only defined
        again, as by `importlib.reload`, is the same.
        """
        if self._nodes_known:
            keys.refuse_if_anonymous(cluster())
        fingerprint = keys.fingerprint
        name, known = self._known.setdefault(keys.prefix, (keys.name, fingerprint))
        if known is fingerprint or (name == keys.name and known.matches(fingerprint)):
            return
        other = (
            "a function of the same name with other code, or that closes over other values"
            if name == keys.name
            else name
        )
        raise ConfigurationError(
            f"cached {keys.name}: the namespace and version {keys.prefix!r} are those of {other};"
            " give each function its own namespace=, or another version="
        )
