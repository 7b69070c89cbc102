"""The standard library as it was before gevent replaced parts of it."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def native(module: str, name: str) -> Any:  # whatever the module has there
    """Return a module's attribute as it was before gevent replaced it."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(import_module(module), name)
    return monkey.get_original(module, name)
