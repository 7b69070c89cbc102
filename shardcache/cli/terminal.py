"""Safe output: untrusted text is escaped, and every terminal can show it."""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

from rich.text import Text

from shardcache.errors import NodeError, printable

# Replacements for output without these characters.
ASCII: Final = str.maketrans({"–": "-", "…": "...", "█": "#"} | dict.fromkeys("▏▎▍▌▋▊▉", "#"))


def escaped(text: object) -> str:
    r"""Return untrusted text with its control characters escaped.

    >>> print(escaped("a\x1b[2J\u202eb"))
    a\x1b[2J\u202eb
    """
    return printable(str(text))


def styled(text: object, style: str = "") -> Text:
    """Return untrusted text for a table or a line, in a style; markup in it has no effect."""
    return Text(escaped(text), style=style)


def reason_of(error: NodeError) -> str:
    """Return the text of a node's error without the name of the node."""
    return str(error).removeprefix(f"{error.node}: ")


def escaped_lines(text: str) -> str:
    """Return text with each of its lines escaped."""
    return "\n".join(escaped(line) for line in text.split("\n"))


def is_ascii(stream: object = None) -> bool:
    """Return whether the output can show ASCII only."""
    encoding = getattr(sys.stdout if stream is None else stream, "encoding", None)
    return not (encoding or "utf-8").lower().startswith("utf")


def say(text: str, *, err: bool = False) -> None:
    """Print a line; characters that the output cannot show are replaced or escaped."""
    stream = sys.stderr if err else sys.stdout
    print(text.translate(ASCII) if is_ascii(stream) else text, file=stream, flush=True)


def prepare_output() -> None:
    """Let standard output and error escape what they cannot encode; a closed one is discarded."""
    sys.stdout = sys.stdout or _null_stream()
    sys.stderr = sys.stderr or _null_stream()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _null_stream() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - until the process ends


def silence_output() -> None:
    """Discard all further output: the reader has closed its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(nowhere, stream.fileno())


def jsonable(value: Any) -> Any:  # whatever was stored
    """Return a value that JSON can hold; other types become text."""
    if isinstance(value, Mapping):
        return {_json_key(key): jsonable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or type(value) in (str, int, float, bool):
        return value
    return str(value)


def _json_key(key: object) -> str:
    return key if isinstance(key, str) else str(key)
