"""What the clients of one process share: the probers of their nodes."""

from __future__ import annotations

import logging
import os
import weakref
from typing import Final

from shardcache.backends.base import BackendOptions
from shardcache.errors import NodeError
from shardcache.io.blocking import BlockingIO
from shardcache.operations.cluster.prober import Prober, ProberLog

log = logging.getLogger("shardcache")

Terms = tuple[int, float, float]  # process, and seconds of a call and of a dial

# Held by the clients alone. A plain dict, for each of its steps is whole: no lock is needed, which an
# interrupt or a fork could leave locked.
_probers: Final[dict[Terms, weakref.ref[Prober]]] = {}


def prober_of(options: BackendOptions) -> Prober:
    """Return the prober that all clients with these timeouts have in common.

    It lives as long as one of them. A forked child begins with none: what its parent had ejected is
    nothing to clients made in the child.
    """
    terms = (os.getpid(), options.call_timeout, options.connect_timeout)
    while True:
        held = _probers.get(terms)
        if held is not None and (prober := held()) is not None:
            return prober
        if held is not None:  # it is going just now
            _forget(terms, held)
        made = Prober(BlockingIO(), options.call_timeout, LOG)
        _probers.setdefault(terms, weakref.ref(made, lambda dead: _forget(terms, dead)))


def _forget(terms: Terms, dead: weakref.ref[Prober]) -> None:
    """Remove the reference to a prober that is gone, unless another has its place."""
    if _probers.get(terms) is dead:
        _probers.pop(terms, None)


def _log_ejection(error: NodeError) -> None:
    # As text: a handler that keeps its records would keep the error's frames, and the client.
    log.warning("a node is ejected, and probed until it answers: %s", str(error))


def _log_return(name: str, seconds: float) -> None:
    log.info("node %s is asked again after %.1f s", name, seconds)


LOG: Final = ProberLog(_log_ejection, _log_return)
