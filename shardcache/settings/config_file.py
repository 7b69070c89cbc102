"""A file of settings that is read again when it has changed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Final, Self

from shardcache.errors import ConfigurationError
from shardcache.settings.follow import Follow
from shardcache.settings.settings import Settings
from shardcache.settings.sources import CONFIG_VARIABLE, PREFIX, file_of_nodes, follow_of

# Seconds for which a file must stay as it was read: an editor may be writing it.
SETTLES: Final = 0.1


class ConfigFile:
    """A file of settings, and whether it has changed.

    `settings` are those with which the program began, `follow` how its nodes change, by the last look
    at the file. `path` is absolute: a program may change its directory.
    """

    __slots__ = ("_environ", "_seen", "follow", "path", "settings")

    def __init__(self, path: str | PathLike[str], environ: Mapping[str, str] | None = None) -> None:
        """Read the file; raise `ConfigurationError` if it cannot be used.

        With `environ` the other variables override the file, as they do in `Settings.from_env`.
        """
        self.path = Path(path).absolute()
        self._environ = environ and {
            **{name: value for name, value in environ.items() if name.startswith(PREFIX)},
            CONFIG_VARIABLE: str(self.path),
        }
        self._seen: str | None = None
        self.follow = Follow()
        self.settings = self._load()

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> Self:
        """Return the file that names the nodes; raise `ConfigurationError` if no file does."""
        return cls(file_of_nodes(environ), environ)

    def look(self) -> Settings | ConfigurationError | None:
        """Return the settings of the file, or its faults, if it has changed; else `None`.

        The first look returns them always.
        """
        seen = self._state()
        if seen == self._seen:
            return None
        while True:
            found = self._load_or_fault()
            time.sleep(SETTLES)
            before, seen = seen, self._state()
            if seen == before:
                self._seen = seen
                return found

    def restart_needed(self, found: Settings) -> tuple[str, ...]:
        """Return the settings, other than the nodes, that are not those with which the program began."""
        names = (field.name for field in fields(Settings) if field.name != "nodes")
        return tuple(name for name in names if getattr(found, name) != getattr(self.settings, name))

    def _load(self) -> Settings:
        found = Settings.from_env(self._environ) if self._environ else Settings.load(self.path)
        self.follow = follow_of(self.path)
        return found

    def _load_or_fault(self) -> Settings | ConfigurationError:
        try:
            return self._load()
        except ConfigurationError as error:
            return error.with_traceback(None)

    def _state(self) -> str:
        """Return a digest of the file, which may hold passwords, or why it cannot be read."""
        try:
            return hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            return f"cannot be read: {error.strerror}"
