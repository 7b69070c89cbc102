"""A kazoo client as a session needs it: quick to give up a server, and silent about secrets."""

from __future__ import annotations

import logging
import math
import os
import ssl
import time
from collections.abc import Callable, Sequence
from io import FileIO
from typing import Any, Final

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    ConnectionClosedError,
    KazooException,
    SessionExpiredError,
)
from kazoo.handlers.threading import AsyncResult, SequentialThreadingHandler
from kazoo.protocol.connection import _CONNECTION_DROP
from kazoo.protocol.serialization import SASL, Auth, Connect
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.security import CREATOR_ALL_ACL

from shardcache_zookeeper.answers import Answer
from shardcache_zookeeper.ensemble import Credentials, Ensemble

# kazoo's own pauses double, up to a minute: it would find a new leader as much later as the ensemble took
# to choose it. With these, a pause is at most half as long as it has been without a server.
RETRY: Final = {
    "max_tries": -1,
    "delay": 0.05,
    "backoff": 1.2,
    "max_jitter": 0.2,
    "max_delay": 1.0,
}

# The states in which kazoo takes no request.
_ENDED: Final = {
    KeeperState.AUTH_FAILED: AuthFailedError,
    KeeperState.CLOSED: ConnectionClosedError,
    KeeperState.EXPIRED_SESSION: SessionExpiredError,
}

kazoo_log = logging.getLogger("shardcache.zookeeper")


class _NoSecrets(logging.Filter):
    """Drops what kazoo logs of credentials: requests that carry them, and the session's password."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        secret = any(isinstance(argument, (Auth, SASL)) for argument in arguments)
        return record.levelno >= logging.DEBUG and not secret


kazoo_log.addFilter(_NoSecrets())


class _Result(AsyncResult):  # type: ignore[misc]  # kazoo has no types
    """A result whose callbacks run in the thread that receives it, and for which its caller takes no lock.

    kazoo has another thread for them. It would only wake the caller, and costs a third of a millisecond.
    What a signal raises in a caller may leave a lock locked, for which kazoo's thread would wait for ever.
    """

    def set(self, value: Any = None) -> None:
        self.value = value
        self._exception: BaseException | None = None
        self._do_callbacks()
        with self._condition:  # of kazoo's own threads
            self._condition.notify_all()

    def set_exception(self, exception: BaseException) -> None:
        self._exception = exception
        self._do_callbacks()
        with self._condition:
            self._condition.notify_all()

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        self._callbacks.append(callback)
        if self.ready():
            self._do_callbacks()

    def _do_callbacks(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:  # another thread has taken it
                return
            callback(self)


class _Client(KazooClient):  # type: ignore[misc]  # kazoo has no types
    """A kazoo client that is as good as before if a signal interrupts a caller.

    kazoo takes what the signal raises for a closed connection: its caller never gets that, and the request
    is answered twice.
    """

    def _call(self, request: Any, result: Any) -> None:
        """Queue a request, and wake kazoo's thread by a byte."""
        if (ended := _ENDED.get(self._state)) is not None:
            result.set_exception(ended())
            return
        try:
            self._queue.append((request, result))
            self._wake(result)
        except BaseException:
            self._wake(
                result
            )  # with a byte too few a later request would wait; one too many is harmless
            raise

    def _wake(self, result: Any) -> None:
        writer = self._connection._write_sock  # noqa: SLF001 - its own
        try:
            writer.send(b"\0")
        except (OSError, ValueError, AttributeError):  # it has just been closed, and is `None` then
            result.set_exception(ConnectionClosedError("Connection has been closed"))


class _PipeEnd(FileIO):
    """An end of a pipe, with the methods of a socket that kazoo calls."""

    send = FileIO.write
    recv = FileIO.read


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo's threads, with a bound on each dial, and TLS by a `context`.

    kazoo would wait for a host that is switched off for as long as the whole session may last, and makes
    contexts of its own. `refusal` is why the last server could not be asked over TLS.
    """

    def __init__(self, connect_timeout: float, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self._connect_timeout = connect_timeout
        self._context = context
        self.refusal = ""

    def create_connection(
        self,
        *args: Any,
        timeout: float = math.inf,
        hostname: str | None = None,
        **kwargs: Any,  # kazoo's own
    ) -> Any:
        seconds = min(timeout, self._connect_timeout)
        connection = super().create_connection(*args, timeout=seconds, **kwargs)
        if self._context is None:
            return connection
        try:
            secure = self._context.wrap_socket(connection, server_hostname=hostname)
        except ssl.SSLError as error:
            connection.close()
            self.refusal = f"TLS failed: {error.reason or error}"
            raise
        self.refusal = ""
        return secure

    def create_socket_pair(self) -> tuple[_PipeEnd, _PipeEnd]:
        """Return the two ends of a pipe: kazoo puts a byte into it for each request.

        A pair of sockets is full after some hundreds of them. kazoo's thread then waits for itself if it
        sends as many, which it does to watch the locks of a process after a connection was lost.
        """
        reader, writer = os.pipe()
        return _PipeEnd(reader, "r"), _PipeEnd(writer, "w")

    def async_result(self) -> _Result:
        return _Result(self)

    def select(
        self,
        readers: Sequence[Any],
        writers: Sequence[Any],
        others: Sequence[Any],
        timeout: float | None = None,
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """Count a socket as readable also if TLS has read ahead: kazoo would wait for more."""
        ahead = [each for each in readers if isinstance(each, ssl.SSLSocket) and each.pending()]
        readable, writable, odd = super().select(readers, writers, others, 0 if ahead else timeout)
        return [*ahead, *(each for each in readable if each not in ahead)], writable, odd


class Connection:
    """A kazoo client whose requests are futures, and that tells when a server takes its session.

    `on_connect` gets when that was requested, as monotonic seconds, and the session's timeout in
    seconds. `on_state` gets kazoo's states. Both are called by kazoo's threads.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        connect_timeout: float,
        on_connect: Callable[[float, float], None],
        on_state: Callable[[str], None],
    ) -> None:
        credentials, tls = ensemble.credentials, ensemble.tls
        self.acl = CREATOR_ALL_ACL if credentials else None
        self._handler = _Handler(connect_timeout, None if tls is None else tls.context)
        self.kazoo = _Client(
            hosts=ensemble.hosts,
            timeout=ensemble.session_timeout,
            handler=self._handler,
            connection_retry=dict(RETRY),
            default_acl=self.acl,
            **_proof_of(credentials),
            logger=kazoo_log,
        )
        self._login_refusal = ""
        self.kazoo.add_listener(self._record_refusal)
        self.kazoo.add_listener(on_state)
        _notice_timeout(self.kazoo, on_connect)

    def start(self) -> None:
        """Connect in the background, for as long as it takes."""
        self.kazoo.start_async()

    @property
    def refusal(self) -> str:
        """Why no server takes the session, as far as that is known."""
        return self._login_refusal or self._handler.refusal

    def _record_refusal(self, state: str) -> None:
        """Remember that the servers do not accept the credentials, until one takes the session."""
        if self.kazoo.client_state == KeeperState.AUTH_FAILED:
            self._login_refusal = "it does not accept the user and password in the URL"
        elif state == KazooState.CONNECTED:
            self._login_refusal = ""

    @property
    def has_ended(self) -> bool:
        """Whether kazoo no longer tries to connect, as after an answer that makes no sense."""
        return bool(self.kazoo.client_state == KeeperState.CLOSED)

    def send(self, request: Any) -> Any:
        """Send a request that kazoo has no method for; return its result, which is still to come."""
        result = self.kazoo.handler.async_result()
        self.kazoo._call(request, result)  # noqa: SLF001 - as its own methods do
        return result

    def drop(self) -> None:
        """Leave the server, which is silent, for another one.

        kazoo does so only if a ping is not answered, and sends none while there are other requests.
        """
        self.kazoo._call(_CONNECTION_DROP, self.kazoo.handler.async_result())  # noqa: SLF001 - as in its tests

    def stop(self) -> None:
        """End the session, which removes its nodes, and close the connection."""
        self.kazoo.stop()
        self.kazoo.close()


def _proof_of(credentials: Credentials | None) -> dict[str, Any]:
    """Return the arguments of a kazoo client for who it is."""
    if credentials is None:
        return {}
    user, password, auth = credentials
    if auth == "digest":
        return {"auth_data": [("digest", f"{user}:{password}")]}
    options = {"mechanism": "DIGEST-MD5", "username": user, "password": password}
    return {"sasl_options": options}


def _notice_timeout(kazoo: KazooClient, on_connect: Callable[[float, float], None]) -> None:
    """Call `on_connect` when a server takes the session: kazoo keeps its timeout to itself."""
    connection = kazoo._connection  # noqa: SLF001 - there is no other way to learn it
    invoke = connection._invoke  # noqa: SLF001

    def invoke_and_notice(
        timeout: float, request: Any, xid: int | None = None
    ) -> Any:  # kazoo's own
        sent = time.monotonic()
        answer = invoke(timeout, request, xid)
        if isinstance(request, Connect) and answer[0].time_out > 0:  # else it has expired
            on_connect(sent, answer[0].time_out / 1000)
        return answer

    connection._invoke = invoke_and_notice  # noqa: SLF001


def answer_of(
    result: Any, read: Callable[[Any], Any], then: Callable[[BaseException | None], None]
) -> Answer[Any]:
    """Return kazoo's result, as `read` returns it.

    `then` is called first, with the error if there is one, which may be of `read`.
    """
    answer: Answer[Any] = Answer()

    def answered(result: Any) -> None:
        if (
            answer.done()
        ):  # a request that was refused while the connection was closed may go out later
            return
        error, value = result.exception, None
        if error is None:
            try:
                value = read(result.value)
            except KazooException as failure:
                error = failure
        then(error)
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)

    result.rawlink(answered)
    return answer
