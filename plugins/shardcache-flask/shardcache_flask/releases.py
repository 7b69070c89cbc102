"""Words for a framework that is too old, where its installation does not check it."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from shardcache import ConfigurationError


def require(distribution: str, oldest: str) -> None:
    """Raise `ConfigurationError` if an older release of a distribution is installed.

    >>> require("shardcache", "0.1")
    """
    try:
        installed = version(distribution)
    except PackageNotFoundError:  # frozen, or copied, without its metadata
        return
    if _release(installed) < _release(oldest):
        raise ConfigurationError(
            f"shardcache-flask needs {distribution} {oldest} or later, and {installed} is installed:"
            f" pip install '{distribution}>={oldest}'"
        )


def _release(text: str) -> list[int]:
    """Return the first two numbers of a version."""
    return [int(number) for number in re.findall(r"\d+", text)[:2]]
