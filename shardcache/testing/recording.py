"""An observer that records the traffic of a running program as a profile."""

from __future__ import annotations

import atexit
import os
import secrets
import threading
import time
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from weakref import WeakSet

from xxhash import xxh3_64_intdigest

from shardcache.core.events import KeysAccessed, Observer
from shardcache.core.lifetimes import positive_seconds
from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError
from shardcache.log import log
from shardcache.testing.profiles import Profile
from shardcache.testing.traffic import Traffic

MAX_KEYS: Final = 100_000
MAX_SECONDS: Final = 7 * 86_400.0
PID: Final = "{pid}"


class ProfileRecorder(Observer):
    """Records the traffic of the clients it observes, and writes it to a file as a `Profile`.

    The file is written at the end of a `with` block, by `write()`, and when the interpreter exits. With
    `seconds`, it is written that long after the first access, and later accesses are not recorded. A
    process that is killed, or that ends by `os._exit` as the children of `multiprocessing` do,
    writes nothing at its end: use `seconds` there. `path` is replaced in one step. A write at exit or
    by timer that fails is logged by the logger `shardcache`.

    A forked child records only its own traffic. When several processes write, put `{pid}` into `path`: it
    becomes the number of the process. Otherwise the last process wins.

    Neither keys nor values are kept: keys are counted by a hash with a salt that is never written.
    At most `max_keys` distinct keys are tracked. Accesses to further keys count in everything except
    popularity, and `source` then says that there are at least that many keys. Keys that were never found
    are not keys of the profile: they count as misses.

    >>> from tempfile import TemporaryDirectory
    >>> from shardcache import Client
    >>> with TemporaryDirectory() as directory, ProfileRecorder(f"{directory}/shop.toml") as recorder:
    ...     client = Client("memory://a", observers=[recorder])
    ...     stored = client.set("cart:7", "two pears", ttl=6480)
    ...     value = client.get("cart:7")
    ...     profile = recorder.write()
    >>> profile.name, dict(profile.mix), profile.sizes
    ('shop', {'get': 0.5, 'set': 0.5}, ((9, 1.0),))
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        seconds: float | None = None,
        max_keys: int = MAX_KEYS,
    ) -> None:
        """Record for `path`; raise `ConfigurationError` listing every bad argument."""
        self._template = Path(path).absolute()  # the program may change its directory
        self._seconds, self._max_keys = seconds, max_keys
        faults = list(self._faults())
        if faults:
            raise ConfigurationError(*faults)
        self._stopped = False
        self._start_afresh()
        _recorders.add(self)
        atexit.register(self._save)

    def _faults(self) -> Iterator[str]:
        directory = self._template.parent
        if PID not in str(directory) and not directory.is_dir():
            yield f"path: there is no directory {str(directory)!r}"
        if type(self._max_keys) is not int or self._max_keys < 1:
            yield f"max_keys: must be a whole number of at least 1, not {redact(self._max_keys)}"
        if self._seconds is not None:
            try:
                self._seconds = positive_seconds(self._seconds, MAX_SECONDS)
            except ConfigurationError as error:
                yield f"seconds: {error}"

    def _start_afresh(self) -> None:
        """Forget all traffic, as a forked child must: a lock that a thread held stays locked there."""
        # Reentrant, because a signal handler may use the client in the middle of an event.
        self._lock = threading.RLock()
        self._writing = threading.RLock()
        self._salt = secrets.randbits(64)
        self._traffic = Traffic(self._max_keys)
        self._written = 0  # accesses in the file
        self._began: float | None = None
        self._ended: float | None = None
        self._timer: threading.Timer | None = None

    @property
    def path(self) -> Path:
        """Return the file that this process writes."""
        return Path(str(self._template).replace(PID, str(os.getpid())))

    def keys_accessed(self, event: KeysAccessed) -> None:
        """Count the keys of an event."""
        if self._stopped or self._ended is not None:
            return
        salt = self._salt
        hashes = [xxh3_64_intdigest(key, salt) for key in event.keys]
        with self._lock:
            if self._ended is not None:
                return
            is_first = self._began is None
            if is_first:
                self._began = time.monotonic()
            self._traffic.add(event, hashes)
        if is_first and self._seconds is not None:
            self._start_timer(self._seconds)

    def write(self) -> Profile:
        """Write the profile recorded so far, and return it.

        Raise `ConfigurationError` when nothing was recorded, or when the file cannot be written.
        """
        with self._writing:
            path = self.path
            with self._lock:
                if self._began is None:
                    raise ConfigurationError(
                        f"{path}: nothing was recorded; is the recorder an observer of the client?"
                    )
                traffic = self._traffic.copy()
                ended = time.monotonic() if self._ended is None else self._ended
                seconds = ended - self._began
            profile = traffic.profile(path.stem, seconds)
            _write_atomically(path, profile.dumps())
            self._written = traffic.accesses
            return profile

    def stop(self) -> None:
        """Stop recording, here and in children forked later. Writes nothing."""
        self._stopped = True
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        atexit.unregister(self._save)
        if kind is None:
            self.write()
        else:  # the caller must see that error
            self._save()

    def __repr__(self) -> str:
        state = "stopped" if self._stopped or self._ended is not None else "recording"
        return f"<ProfileRecorder [{state}, {self._traffic.accesses} accesses] {self.path}>"

    def _start_timer(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._time_out)
        timer.name = "shardcache profile recorder"
        timer.daemon = True
        self._timer = timer
        timer.start()

    def _time_out(self) -> None:
        self._end()
        self._save()

    def _end(self) -> None:
        with self._lock:
            if self._ended is None:
                self._ended = time.monotonic()
        if self._timer is not None:
            self._timer.cancel()

    def _save(self) -> None:
        """Write the file if there was traffic since; log an error instead of raising it."""
        if self._traffic.accesses == self._written:
            return
        try:
            self.write()
        except Exception as error:  # noqa: BLE001 - no caller could catch it
            log.error("traffic profile not written: %s", error)  # noqa: TRY400 - its text is enough


def _write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: a reader gets either the old one or the new one."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from error


_recorders: WeakSet[ProfileRecorder] = WeakSet()


def _after_fork() -> None:
    for recorder in list(_recorders):
        recorder._start_afresh()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork)
