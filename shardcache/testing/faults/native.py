"""What names stood for before gevent replaced them."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def native(module: str, name: str) -> Any:  # whatever the module has there
    """Return what a name of a module stood for before gevent replaced it."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(import_module(module), name)
    return monkey.get_original(module, name)
