"""Words for a framework that is too old for its adapter, where the installation has not checked it."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from shardcache.errors import ConfigurationError


def require(adapter: str, framework: str, oldest: str) -> None:
    """Raise `ConfigurationError` if an older release of a framework is installed than its adapter needs.

    `framework` is the name of its distribution; `oldest` has two numbers.

    >>> require("shardcache-flask", "shardcache", "0.1")
    """
    try:
        installed = version(framework)
    except PackageNotFoundError:  # frozen, or copied, without its metadata
        return
    if _release(installed) < _release(oldest):
        raise ConfigurationError(
            f"{adapter} needs {framework} {oldest} or newer, and {installed} is installed:"
            f" pip install '{framework}>={oldest}'"
        )


def _release(text: str) -> list[int]:
    """Return the first two numbers of a version."""
    return [int(number) for number in re.findall(r"\d+", text)[:2]]
