"""A real ZooKeeper ensemble on free ports, which ends with the process that started it.

::

    ensemble = start_zookeeper_ensemble()           # three servers; returns when they have a leader
    ensemble.url                                    # zookeeper://127.0.0.1:…,127.0.0.1:…,…
    ensemble.leader().kill()                        # each is a `Server`; a restart keeps its data
    ensemble.await_leader()
    ensemble.stop()

With `tls` its clients speak TLS. With `users`, passwords by name, they may log in by SASL.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from shardcache.testing.servers import (
    ATTEMPTS,
    LOOPBACK,
    START_SECONDS,
    Listener,
    PortTakenError,
    Recipe,
    Server,
    ServerMissingError,
    Tls,
    free_port,
)

PACKAGE: Final = "zookeeper"
# Where Debian's package has its program; its manifest and the others name what they need.
JARS: Final = Path("/usr/share/java")
LIBRARIES: Final = ("zookeeper.jar", "slf4j-simple.jar", "netty-codec.jar")
SERVER_PACKAGE: Final = "org.apache.zookeeper.server"
MAIN: Final = f"{SERVER_PACKAGE}.quorum.QuorumPeerMain"
NETTY: Final = f"{SERVER_PACKAGE}.NettyServerCnxnFactory"  # which TLS needs
SASL: Final = f"{SERVER_PACKAGE}.auth.SASLAuthenticationProvider"
LOGIN: Final = f"{SERVER_PACKAGE}.auth.DigestLoginModule"
HEAP: Final = "-Xmx64m"
SERVERS: Final = 3
TICK: Final = 0.5  # seconds; the smallest session timeout is two ticks
# Seconds between two looks for containers that are empty; a minute where nothing is said.
CONTAINER_CHECK: Final = 0.5

# The requests of ZooKeeper's own protocol that open a new session, and end it.
_OPEN: Final = struct.pack(">iiqiqi16s?", 45, 0, 0, 10_000, 0, 16, bytes(16), False)  # noqa: FBT003
_END: Final = struct.pack(">iii", 8, 1, -11)
_OPENED: Final = struct.Struct(
    ">iii"
)  # the size of the reply, a version, and the session's timeout
SESSION_SECONDS: Final = 2.0  # that a server may take to open one

_mode = re.compile(rb"Mode: (\w+)").search


class Ensemble:
    """The servers of an ensemble."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.servers = tuple(servers)

    @property
    def url(self) -> str:
        """Return the URL of a lock provider over all servers."""
        scheme = self.servers[0].listener.scheme("zookeeper")
        return f"{scheme}://" + ",".join(f"{each.host}:{each.port}" for each in self.servers)

    def leader(self) -> Server:
        """Return the server that leads; wait for one."""
        return self.await_leader()[0]

    def followers(self) -> Sequence[Server]:
        """Return the servers that follow the leader."""
        return [server for server in self.servers if mode(server) == "follower"]

    def await_leader(self, *, all_serve: bool = False) -> Sequence[Server]:
        """Return the servers that serve, the leader first; wait until it leads a majority, or all.

        Each of them has opened a session, which a server cannot that has only just found its leader.
        """
        wanted = len(self.servers) if all_serve else len(self.servers) // 2 + 1
        deadline = time.monotonic() + START_SECONDS
        while True:
            modes = {server: mode(server) for server in self.servers}
            leaders = [server for server, each in modes.items() if each in {"leader", "standalone"}]
            followers = [server for server, each in modes.items() if each == "follower"]
            if len(leaders) == 1 and 1 + len(followers) >= wanted:
                serving = leaders + followers
                if all(map(opens_session, serving)):
                    return serving
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"no leader of {wanted} servers in {START_SECONDS:.0f} s: {modes}"
                )
            time.sleep(0.05)

    def heal(self) -> None:
        """Resume paused servers and restart killed ones; wait until all serve.

        One that says that it serves and opens no session, as was seen after a pause, is restarted.
        """
        for server in self.servers:
            server.resume()
            if not server.running:
                server.restart()
        try:
            self.await_leader(all_serve=True)
        except TimeoutError:
            for server in self.servers:
                if not opens_session(server):
                    server.restart()
            self.await_leader(all_serve=True)

    def stop(self) -> None:
        """End all servers and remove their files."""
        for server in self.servers:
            server.stop()


def start_zookeeper_ensemble(
    *,
    servers: int = SERVERS,
    tick: float = TICK,
    force_sync: bool = False,
    tls: Tls | None = None,
    users: Mapping[str, str] | None = None,
) -> Ensemble:
    """Start ZooKeeper servers that form an ensemble; `tick` is in seconds.

    With `force_sync` they write each transaction to disk before they confirm it, as in production. The
    key of `tls` must be in the format PKCS #8.
    """
    options = {"tickTime": f"{tick * 1000:.0f}", "forceSync": "yes" if force_sync else "no"}
    if users:
        options["authProvider.sasl"] = SASL
    for _ in range(ATTEMPTS - 1):
        try:
            return _start(servers, options, tls, users or {})
        except PortTakenError:
            continue
    return _start(servers, options, tls, users or {})


def mode(server: Server) -> str:
    """Return `leader`, `follower` or `standalone`; an empty text while it does not serve."""
    try:
        with server.listener.connect(timeout=0.5) as connection:
            connection.sendall(b"srvr")
            reply = b""
            while chunk := connection.recv(16_384):
                reply += chunk
    except OSError:
        return ""
    found = _mode(reply)
    return found.group(1).decode() if found else ""


def opens_session(server: Server) -> bool:
    """Return whether the server opens a session, which takes a majority; it is ended at once."""
    try:
        with server.listener.connect(timeout=SESSION_SECONDS) as connection:
            connection.sendall(_OPEN)
            reply = connection.recv(16_384)
            connection.sendall(_END)
    except OSError:
        return False
    return len(reply) >= _OPENED.size and _OPENED.unpack_from(reply)[2] > 0


def _start(
    count: int, options: Mapping[str, str], tls: Tls | None, users: Mapping[str, str]
) -> Ensemble:
    for jar in LIBRARIES:
        if not (JARS / jar).exists():
            raise ServerMissingError(jar, PACKAGE)
    ports = [(free_port(), free_port()) for _ in range(count)]
    members = "".join(
        f"server.{number}={LOOPBACK}:{peer}:{election}\n"
        for number, (peer, election) in enumerate(ports, start=1)
    )
    with ExitStack() as stack:
        started = []
        for number in range(1, count + 1):
            recipe = _recipe(number, members if count > 1 else "", options, users)
            started.append(Server(recipe, Listener(LOOPBACK, free_port(), tls=tls)))
            stack.callback(started[-1].stop)
        ensemble = Ensemble(started)
        ensemble.await_leader(all_serve=True)
        stack.pop_all()
        return ensemble


def _recipe(
    number: int, members: str, options: Mapping[str, str], users: Mapping[str, str]
) -> Recipe:
    def command(listener: Listener, directory: Path) -> list[str]:
        data = directory / "data"
        data.mkdir(exist_ok=True)
        (data / "myid").write_text(f"{number}\n")
        file = directory / "zoo.cfg"
        file.write_text(
            "".join(f"{name}={value}\n" for name, value in options.items())
            + f"initLimit=20\nsyncLimit=4\ndataDir={data}\npreAllocSize=1024\n"
            + "".join(
                f"{name}={value}\n" for name, value in _listening(listener, directory).items()
            )
            + f"maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n{members}"
        )
        return [
            *[HEAP, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"],
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            f"-Dznode.container.checkIntervalMs={CONTAINER_CHECK * 1000:.0f}",
            *_login(users, directory),
            *["-cp", ":".join(str(JARS / jar) for jar in LIBRARIES), MAIN, str(file)],
        ]

    def answered(reply: bytes, _pid: int) -> bool:
        # It serves when it has found the others. A server whose port is taken ends at once.
        return b"ZooKeeper" in reply or b"Zookeeper" in reply

    return Recipe("java", "zookeeper", command, b"srvr", answered)


def _listening(listener: Listener, directory: Path) -> Mapping[str, str]:
    """Return the options for where a server listens."""
    if listener.tls is None:
        return {"clientPortAddress": listener.host, "clientPort": str(listener.port)}
    own = directory / "server.pem"  # the key and the certificate, in one file
    own.write_bytes(listener.tls.key.read_bytes() + listener.tls.certificate.read_bytes())
    return {
        "secureClientPortAddress": listener.host,
        "secureClientPort": str(listener.port),
        "serverCnxnFactory": NETTY,
        "ssl.keyStore.location": str(own),
        "ssl.trustStore.location": str(listener.tls.authority),
        "ssl.clientAuth": "none",
    }


def _login(users: Mapping[str, str], directory: Path) -> list[str]:
    """Return the options of Java for who may log in."""
    if not users:
        return []
    file = directory / "jaas.conf"
    names = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    file.write_text(f"Server {{ {LOGIN} required {names}; }};\n")
    return [f"-Djava.security.auth.login.config={file}"]
