"""What the library logs is for the program that asks for it."""

from __future__ import annotations

import subprocess
import sys

EJECTION = """
from shardcache import Client
client = Client("memcached://127.0.0.1:1", timeout=5)
assert client.get("k") is None
assert client.ejected
client.close()
"""


def stderr_of(code: str) -> str:
    """Return what a new interpreter that runs `code` writes to its stderr."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return result.stderr


def test_nothing_is_printed_by_a_program_that_has_not_asked_for_it():
    """Without any logging set up, an ejection leaves stderr empty."""
    assert not stderr_of(EJECTION)


def test_a_program_that_sets_up_logging_gets_it():
    """With logging set up in one line, the ejection is there."""
    code = f"import logging\nlogging.basicConfig()\n{EJECTION}"
    assert "WARNING:shardcache:" in stderr_of(code)
