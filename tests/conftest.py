"""The fixtures every test may ask for: servers, and certificates for them.

| fixture | gives |
|---|---|
| `memcached_servers` | three memcached nodes, empty; shared by all tests, so leave them running |
| `redis_servers` | three Redis nodes, empty; shared by all tests, so leave them running |
| `make_memcached`, `make_redis`, `make_nutcracker` | starts a server of this test's own, to be stopped, killed or configured at will; takes the arguments of `servers.start_…` |
| `tls` | a certificate for 127.0.0.1, ::1 and localhost, its key and its authority, as files |

A missing server is a failure that says how to install it, never a skip.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

import hypothesis
import pytest
import trustme

from shardcache.testing.servers import Server, Tls, start_memcached, start_nutcracker, start_redis

NODES = 3

# They need a browser, and are run when they are named: `pytest tests/browser`.
collect_ignore = ["browser"]
if sys.version_info >= (3, 12):
    # pylibmc has no wheels for it; what it would show is asked of nutcracker there as well.
    collect_ignore.append("compatibility/test_pylibmc.py")

# How fast a busy machine is today must not decide whether a property holds.
hypothesis.settings.register_profile(
    "shardcache", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shardcache")


@pytest.fixture(scope="session")
def _memcached_pool() -> Iterator[Sequence[Server]]:
    with _running(start_memcached) as servers:
        yield servers


@pytest.fixture(scope="session")
def _redis_pool() -> Iterator[Sequence[Server]]:
    with _running(start_redis) as servers:
        yield servers


@pytest.fixture
def memcached_servers(_memcached_pool: Sequence[Server]) -> Sequence[Server]:
    """Give three memcached nodes, empty."""
    for server in _memcached_pool:
        server.ask(b"flush_all\r\n", b"OK\r\n")
    return _memcached_pool


@pytest.fixture
def redis_servers(_redis_pool: Sequence[Server]) -> Sequence[Server]:
    """Give three Redis nodes, empty."""
    for server in _redis_pool:
        server.ask(b"FLUSHALL\r\n", b"+OK\r\n")
    return _redis_pool


@pytest.fixture
def make_memcached() -> Iterator[Callable[..., Server]]:
    """Give `start_memcached`; what it starts is stopped at the end."""
    with _stopping(start_memcached) as start:
        yield start


@pytest.fixture
def make_redis() -> Iterator[Callable[..., Server]]:
    """Give `start_redis`; what it starts is stopped at the end."""
    with _stopping(start_redis) as start:
        yield start


@pytest.fixture
def make_nutcracker() -> Iterator[Callable[..., Server]]:
    """Give `start_nutcracker`; what it starts is stopped at the end."""
    with _stopping(start_nutcracker) as start:
        yield start


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Give a server certificate and the authority that signed it."""
    directory = tmp_path_factory.mktemp("tls")
    files = Tls(directory / "server.pem", directory / "server.key", directory / "authority.pem")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "::1", "localhost")
    files.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    files.key.write_bytes(issued.private_key_pem.bytes())
    files.authority.write_bytes(authority.cert_pem.bytes())
    return files


@contextlib.contextmanager
def _running(start: Callable[[], Server]) -> Iterator[Sequence[Server]]:
    with _stopping(start) as started:
        yield tuple(started() for _ in range(NODES))


@contextlib.contextmanager
def _stopping(start: Callable[..., Server]) -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:

        def started(*arguments: object, **options: object) -> Server:
            server = start(*arguments, **options)
            stack.callback(server.stop)
            return server

        yield started
