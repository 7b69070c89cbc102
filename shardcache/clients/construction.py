"""The parts that a client is built from: strategy, codec, payloads, backends."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from shardcache.backends.base import AsyncBackend, Backend, BackendOptions
from shardcache.core.codecs import Codec, CodecFactory, Json, Raw
from shardcache.core.foreign import Foreign
from shardcache.core.nodes import Node
from shardcache.core.payloads import Payloads, payloads_of
from shardcache.core.strategy import Strategy
from shardcache.errors import ConfigurationError
from shardcache.plugin.manager import Plugins
from shardcache.settings import Settings, parse_choice

if TYPE_CHECKING:  # loaded with the first node that speaks TLS
    import ssl

log = logging.getLogger("shardcache")


def build_strategy(plugins: Plugins, choice: str | Strategy) -> Strategy:
    """Return the strategy of a name with its options; an object is used as it is."""
    if not isinstance(choice, str):
        return choice
    name, options = parse_choice(choice)
    return plugins.strategies[name](**options)


def build_codec(plugins: Plugins, choice: str | Codec, settings: Settings) -> Codec:
    """Return the codec of a name with its options; an object is used as it is."""
    if not isinstance(choice, str):
        return choice
    name, options = parse_choice(choice)
    factory = plugins.codecs[name]
    if settings.secret is not None and _takes_secret(factory):
        return factory(secret=settings.secret, **options)
    return factory(**options)


def build_payloads(codec: Codec, settings: Settings, wall: Callable[[], float]) -> Payloads:
    """Return what turns values into stored bytes and back, with the secrets of the settings."""
    foreign = Foreign(unsigned=settings.read_unsigned, compressed=settings.read_compressed)
    return payloads_of(codec, settings.secret or (), wall, foreign)


def backend_options(
    settings: Settings, codec: Codec, ssl_context: ssl.SSLContext | None
) -> BackendOptions:
    """Return the options that all backends of a client have in common."""
    return BackendOptions(
        pool_size=settings.pool_size,
        call_timeout=settings.timeout.call,
        connect_timeout=settings.timeout.connect_seconds,
        ssl_context=ssl_context,
        bare_bytes=isinstance(codec, Raw) and settings.secret is None,
        bare_json=isinstance(codec, Json) and settings.secret is None,
    )


def blocking_backends(plugins: Plugins, options: BackendOptions) -> Callable[[Node], Backend]:
    """Return the function that builds the blocking backend of a node."""
    backends = plugins.backends
    return lambda node: backends[node.address.scheme].blocking(node, options)


def asyncio_backends(plugins: Plugins, options: BackendOptions) -> Callable[[Node], AsyncBackend]:
    """Return the function that builds the asyncio backend of a node."""
    backends = plugins.backends
    return lambda node: backends[node.address.scheme].asyncio(node, options)


def refuse_eventlet() -> None:
    """Raise `ConfigurationError` if eventlet has removed `select.poll`, on which calls wait."""
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and any(map(patcher.is_monkey_patched, ("select", "socket"))):
        raise ConfigurationError(
            "eventlet.monkey_patch() has replaced the sockets of this process, and shardcache does not"
            " work with those; use gevent, threads or asyncio (gunicorn -k gevent, or -k gthread)"
        )


def warn_of_unverified(context: ssl.SSLContext | None) -> None:
    """Log a warning for what a TLS context does not verify."""
    for caution in () if context is None else _unverified(context):
        log.warning("ssl_context: %s", caution)


def _unverified(context: ssl.SSLContext) -> Iterator[str]:
    if not context.verify_mode:  # `ssl.CERT_NONE`
        yield "verify_mode is CERT_NONE: any server is taken for a node, whatever its certificate says"
    elif not context.check_hostname:
        yield (
            "check_hostname is false: a server with the certificate of any other name is taken for a"
            " node"
        )


def _takes_secret(factory: CodecFactory) -> bool:
    return "secret" in inspect.signature(factory).parameters
