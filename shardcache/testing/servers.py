"""Real memcached, Redis and nutcracker servers on free ports; they end with the process that started them.

::

    server = start_memcached("-M", "-m", "8")       # any of memcached's own options
    server.pause()                                  # SIGSTOP: accepts connections, answers nothing
    server.resume()
    server.kill()                                   # SIGKILL: refuses connections
    server.restart()                                # the same port, empty
    server.stop()                                   # ends it and removes its files
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

LOOPBACK: Final = "127.0.0.1"

# Below the range of outgoing connections, so that no client can take the port of a killed server before
# its restart.
PORTS: Final = range(10_000, 32_000)

START_SECONDS: Final = 20.0
ATTEMPTS: Final = 10

# Debian keeps nutcracker where only root looks.
BINARY_PATH: Final = os.pathsep.join(
    (os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin")
)

PACKAGES: Final = {
    "memcached": "memcached",
    "redis-server": "redis-server",
    "nutcracker": "nutcracker",
}


class ServerMissingError(RuntimeError):
    """A server's binary is not installed; the error names the package that has it."""

    def __init__(self, binary: str, package: str) -> None:
        super().__init__(
            f"no {binary} on this machine; it comes with the package {package!r}"
            f" (on Debian and Ubuntu: apt-get install {package})"
        )


class ServerFailedError(RuntimeError):
    """A server did not start; the error shows its output."""


class PortTakenError(ServerFailedError):
    """Another process bound the port first."""


class Tls(NamedTuple):
    """The files of a server's certificate, and of the authority that its clients should trust."""

    certificate: Path
    key: Path
    authority: Path


class Listener(NamedTuple):
    """Where a server listens: a TCP port, or a socket's path (`host` empty, `port` 0)."""

    host: str
    port: int
    path: Path | None = None
    tls: Tls | None = None

    @property
    def location(self) -> str:
        """Return what follows `scheme://` in a URL."""
        if self.path is not None:
            return str(self.path)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def scheme(self, name: str) -> str:
        """Return the URL scheme of this listener, for a server whose plain scheme is `name`."""
        if self.path is not None:
            return f"{name}+unix"
        return f"{name}s" if self.tls else name

    @contextmanager
    def connect(self, timeout: float) -> Iterator[socket.socket]:
        """Connect without verifying the certificate, and close at the end."""
        with socket.socket(self._family) as plain:
            plain.settimeout(timeout)
            plain.connect(str(self.path) if self.path else (self.host, self.port))
            if self.tls is None:
                yield plain
            else:
                with _unverified_context().wrap_socket(plain) as wrapped:
                    yield wrapped

    @property
    def _family(self) -> socket.AddressFamily:
        return socket.AF_UNIX if self.path else family_of(self.host)


class Recipe(NamedTuple):
    """How to run a server on a listener, and how to recognise its answer.

    `greeting` is sent on a new connection; `answered(reply, pid)` returns whether the reply is a valid one
    of the process `pid`.
    """

    binary: str
    scheme: str
    arguments: Callable[[Listener, Path], Sequence[str]]
    greeting: bytes
    answered: Callable[[bytes, int], bool]


class Server:
    """A server that runs until it is stopped, or until the process that started it ends."""

    def __init__(self, recipe: Recipe, listener: Listener) -> None:
        self._recipe = recipe
        self._listener = listener
        self._binary = find_binary(recipe.binary)
        self._directory = Path(tempfile.mkdtemp(prefix=f"{recipe.binary}-", dir=_workspace().root))
        self._log = self._directory / "output.log"
        self._process = self._start()

    @property
    def url(self) -> str:
        """Return the node URL of this server."""
        return f"{self._listener.scheme(self._recipe.scheme)}://{self._listener.location}"

    @property
    def host(self) -> str:
        """Return the address the server listens on; empty for a Unix socket."""
        return self._listener.host

    @property
    def port(self) -> int:
        """Return the port, which restarts keep; 0 for a Unix socket."""
        return self._listener.port

    @property
    def listener(self) -> Listener:
        """Return where the server listens."""
        return self._listener

    @property
    def pid(self) -> int:
        """Return the process id, a new one after each restart."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether the process has not ended; it may be paused."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """Return what the server has written to stdout and stderr."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def pause(self) -> None:
        """Stop the process where it is (SIGSTOP); return when it has stopped."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused process run on (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once (SIGKILL); return when its port refuses connections."""
        self._process.kill()
        self._process.wait()
        _workspace().forget(self.pid)

    def restart(self) -> None:
        """Start again, empty, on the same port; return when it answers."""
        self.kill()
        self._process = self._start()

    def stop(self) -> None:
        """End the server and remove its files. Stopping twice does nothing more."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def ask(self, request: bytes, expected: bytes) -> None:
        """Send `request` on a new connection; raise unless the reply begins with `expected`."""
        with self._listener.connect(timeout=START_SECONDS) as connection:
            connection.sendall(request)
            reply = connection.recv(16_384)
        if not reply.startswith(expected):
            raise ServerFailedError(f"{self!r} answered {reply!r} to {request!r}")

    def _start(self) -> subprocess.Popen[bytes]:
        process = self._spawn()
        try:
            self._await_answer(process)
        except BaseException:
            process.kill()
            process.wait()
            _workspace().forget(process.pid)
            raise
        return process

    def _spawn(self) -> subprocess.Popen[bytes]:
        arguments = self._recipe.arguments(self._listener, self._directory)
        with self._log.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own recipe
                [self._binary, *arguments],
                cwd=self._directory,
                env={**os.environ, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _workspace().remember(process.pid)
        return process

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers(process.pid) or process.poll() is not None:
            if process.poll() is not None:
                raise self._failure(f"ended with status {process.returncode}")
            if time.monotonic() > deadline:
                raise self._failure(f"gave no valid answer in {START_SECONDS:.0f} s")
            time.sleep(0.01)

    def _answers(self, pid: int) -> bool:
        try:
            with self._listener.connect(timeout=1) as connection:
                connection.sendall(self._recipe.greeting)
                return self._recipe.answered(connection.recv(16_384), pid)
        except OSError:
            return False

    def _failure(self, what: str) -> ServerFailedError:
        output = self.output[-2_000:]
        kind = PortTakenError if os.strerror(errno.EADDRINUSE) in output else ServerFailedError
        return kind(
            f"{self._recipe.binary} at {self._listener.location} {what}; its output:\n{output}"
        )

    def __repr__(self) -> str:
        return f"<Server {self.url} pid {self.pid}>"


def start_memcached(
    *arguments: str, tls: Tls | None = None, unix: Path | None = None, host: str = LOOPBACK
) -> Server:
    """Start a memcached of one thread and 64 MiB; `arguments` are its own options, and win."""

    def command(listener: Listener, _directory: Path) -> list[str]:
        return [
            *(["-u", "root"] if os.geteuid() == 0 else []),
            *["-t", "1", "-m", "64", "-U", "0"],
            *_memcached_listens(listener),
            *arguments,
        ]

    def answered(reply: bytes, pid: int) -> bool:
        # A server with a password answers that in place of its figures.
        return f"STAT pid {pid}\r\n".encode() in reply or reply.startswith(b"CLIENT_ERROR")

    recipe = Recipe("memcached", "memcached", command, b"stats\r\n", answered)
    return _start(recipe, tls, unix, host)


def start_redis(
    *arguments: str, tls: Tls | None = None, unix: Path | None = None, host: str = LOOPBACK
) -> Server:
    """Start a Redis that saves nothing; `arguments` are its own options, and win."""

    def command(listener: Listener, directory: Path) -> list[str]:
        return [
            *["--save", "", "--appendonly", "no", "--dir", str(directory)],
            *_redis_listens(listener),
            *arguments,
        ]

    def answered(reply: bytes, pid: int) -> bool:
        # A server with a password answers that in place of its figures.
        return f"process_id:{pid}\r\n".encode() in reply or reply.startswith(b"-NOAUTH")

    recipe = Recipe("redis-server", "redis", command, b"INFO server\r\n", answered)
    return _start(recipe, tls, unix, host)


def start_nutcracker(config: Mapping[str, object], *, host: str = LOOPBACK) -> Server:
    """Start a nutcracker (twemproxy) of one pool, with `config` as that pool's settings.

    `config` names everything but `listen`: `{"servers": ["127.0.0.1:11211:1"], "hash":
    "fnv1a_64", "distribution": "ketama"}`, and `"redis": True` for a pool of Redis nodes.
    """
    redis = bool(config.get("redis"))

    def command(listener: Listener, directory: Path) -> list[str]:
        file = directory / "nutcracker.yml"
        file.write_text(_nutcracker_yaml({**config, "listen": listener.location}))
        # By default it listens on a fixed statistics port and writes to system files.
        statistics = ["-a", host, "-s", str(free_port(host))]
        return ["-c", str(file), "-p", str(directory / "pid"), "-o", "/dev/stderr", *statistics]

    def answered(reply: bytes, _pid: int) -> bool:
        # A reply does not name its process; but a nutcracker whose port is taken ends at once.
        time.sleep(0.05)
        return reply.startswith(b"+PONG" if redis else b"VERSION")

    # Nutcracker does not parse inline Redis commands.
    greeting = b"*1\r\n$4\r\nPING\r\n" if redis else b"version\r\n"
    scheme = "redis" if redis else "pymemcache"
    return _start(Recipe("nutcracker", scheme, command, greeting, answered), None, None, host)


def free_port(host: str = LOOPBACK) -> int:
    """Return a port that is free now; another process may still bind it first."""
    while True:
        # Not `random`, which Hypothesis seeds: all workers would draw the same port.
        port = secrets.choice(PORTS)
        with socket.socket(family_of(host)) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port


def family_of(host: str) -> socket.AddressFamily:
    """Return the family of a numeric address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def find_binary(name: str) -> str:
    """Return the path of a server's binary; raise `ServerMissingError` when there is none."""
    found = shutil.which(name, path=BINARY_PATH)
    if found is None:
        raise ServerMissingError(name, PACKAGES.get(name, name))
    return found


def _start(recipe: Recipe, tls: Tls | None, unix: Path | None, host: str) -> Server:
    for _ in range(ATTEMPTS - 1):
        try:
            return Server(recipe, _listener(tls, unix, host))
        except PortTakenError:
            continue
    return Server(recipe, _listener(tls, unix, host))


def _listener(tls: Tls | None, unix: Path | None, host: str) -> Listener:
    if unix is not None:
        return Listener(host="", port=0, path=unix)
    return Listener(host, free_port(host), tls=tls)


def _memcached_listens(listener: Listener) -> list[str]:
    if listener.path is not None:
        return ["-s", str(listener.path)]
    return ["-l", listener.host, "-p", str(listener.port), *_memcached_tls(listener.tls)]


def _memcached_tls(tls: Tls | None) -> list[str]:
    if tls is None:
        return []
    return ["-Z", "-o", f"ssl_chain_cert={tls.certificate},ssl_key={tls.key}"]


def _redis_listens(listener: Listener) -> list[str]:
    if listener.path is not None:
        return ["--port", "0", "--unixsocket", str(listener.path)]
    bind = ["--bind", listener.host]
    if listener.tls is None:
        return [*bind, "--port", str(listener.port)]
    return [
        *[*bind, "--port", "0", "--tls-port", str(listener.port), "--tls-auth-clients", "no"],
        *["--tls-cert-file", str(listener.tls.certificate)],
        *["--tls-key-file", str(listener.tls.key)],
        *["--tls-ca-cert-file", str(listener.tls.authority)],
    ]


def _nutcracker_yaml(pool: Mapping[str, object]) -> str:
    lines = ["pool:"]
    for name, value in pool.items():
        if isinstance(value, (list, tuple)):
            lines += [f"  {name}:", *(f"    - {item}" for item in value)]
        else:
            lines.append(f"  {name}: {str(value).lower() if isinstance(value, bool) else value}")
    return "\n".join(lines) + "\n"


def _unverified_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Workspace:
    """The directory of this process's servers, and a watcher process that cleans up.

    The watcher is at the other end of a pipe. However the tests end, even by a crash or SIGKILL, the pipe
    closes; the watcher then kills the servers that still run and removes the directory. Exit handlers
    would miss crashes, and would also run in forked children.
    """

    WATCHER: Final = """
import contextlib, os, shutil, signal, sys
running = set()
for line in sys.stdin:
    pid = int(line[1:])
    (running.add if line[0] == "+" else running.discard)(pid)
for pid in running:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="shardcache-servers-"))
        watcher_end, self._pipe = os.pipe()
        watcher = subprocess.Popen(  # noqa: S603 - our own recipe
            [sys.executable, "-I", "-S", "-c", self.WATCHER, str(self.root)],
            stdin=watcher_end,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(watcher_end)
        # It outlives this process on purpose: no warning.
        watcher.returncode = 0

    def remember(self, pid: int) -> None:
        """Kill `pid` when this process ends."""
        self._send(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        """Leave `pid` alone: the process has ended, and another one may get its number."""
        self._send(f"-{pid}\n")

    def _send(self, line: str) -> None:
        os.write(self._pipe, line.encode())


@cache
def _workspace() -> Workspace:
    return Workspace()
