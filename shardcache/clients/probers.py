"""The probers that the clients of one process share."""

from __future__ import annotations

import os
import weakref
from typing import Final

from shardcache.backends.base import BackendOptions
from shardcache.clients.swallowed_log import node_and_reason
from shardcache.errors import NodeError
from shardcache.io.blocking import BlockingIO
from shardcache.log import log
from shardcache.operations.cluster.prober import Prober, ProberLog

ProberKey = tuple[int, float, float]  # process; seconds of a call and of a dial

# The clients hold the probers. A plain dict, because each of its steps is atomic: a lock could stay
# locked after an interrupt or a fork.
_probers: Final[dict[ProberKey, weakref.ref[Prober]]] = {}


def shared_prober(options: BackendOptions) -> Prober:
    """Return the prober that all clients with these timeouts share.

    It lives as long as one of them. A forked child starts without any: clients created in the child do
    not know what the parent had ejected.
    """
    key = (os.getpid(), options.call_timeout, options.connect_timeout)
    while True:
        known = _probers.get(key)
        if known is not None and (prober := known()) is not None:
            return prober
        if known is not None:  # the last client with it is being dropped just now
            _forget(key, known)
        created = Prober(BlockingIO(), options.call_timeout, LOG)
        _probers.setdefault(key, weakref.ref(created, lambda dead: _forget(key, dead)))


def _forget(key: ProberKey, dead: weakref.ref[Prober]) -> None:
    """Remove the reference to a prober that is gone, unless another has taken its place."""
    if _probers.get(key) is dead:
        _probers.pop(key, None)


def _log_ejection(error: NodeError) -> None:
    # As text: a handler that keeps its records would keep the error's frames, and the client.
    log.warning("node %s ejected: %s; probing it until it answers", *node_and_reason(error))


def _log_return(name: str, seconds: float, deleted: int) -> None:
    if deleted:
        log.info(
            "node %s restored after %.1f s; deleted %d key(s) there whose writes had failed",
            name,
            seconds,
            deleted,
        )
    else:
        log.info("node %s restored after %.1f s", name, seconds)


def _log_overflow(name: str, kept: int) -> None:
    log.warning(
        "node %s: more than %d writes failed while it was out: further keys may have old values when it"
        " is back; empty it then (shardcache flush), or set on_overflow to flush",
        name,
        kept,
    )


def _log_refusal(name: str, keys: int, error: NodeError) -> None:
    log.warning(
        "node %s refused to delete %d key(s) whose writes had failed, and may have old values: %s",
        name,
        keys,
        node_and_reason(error)[1],
    )


LOG: Final = ProberLog(_log_ejection, _log_return, _log_overflow, _log_refusal)
