"""How an error is reported: in lines for people or JSON for programs, and by an exit status."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

import click

from shardcache.cli.output import EXIT_NOT_DONE, EXIT_USAGE, print_json
from shardcache.cli.terminal import escaped, escaped_lines, say, silence_output
from shardcache.errors import (
    CodecError,
    ConfigurationError,
    InvalidKeyError,
    NodeError,
    PartialFailureError,
    ShardCacheError,
)

EXIT_INTERRUPTED: Final = 128 + signal.SIGINT
EXIT_PIPE: Final = 128 + 13  # SIGPIPE, which not every system has
USAGE_ERRORS: Final = (ConfigurationError, InvalidKeyError, CodecError)


def report_error(error: BaseException, words: Sequence[str]) -> int:
    """Print an error in the form that the command line asks for; return the exit status."""
    if isinstance(error, BrokenPipeError):
        silence_output()
        return EXIT_PIPE
    if isinstance(error, click.Abort):
        return _report_abort(error, words)
    if wants_json(words):
        print_json(error_as_json(error))
    else:
        _print(error)
    return status_of(error)


def wants_json(words: Sequence[str]) -> bool:
    """Return whether a command line asks for JSON, by its words: a mistake may keep click from parsing."""
    options = words[: words.index("--")] if "--" in words else words
    return "--json" in options


def status_of(error: BaseException) -> int:
    """Return the exit status of an error."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    return EXIT_USAGE if isinstance(error, USAGE_ERRORS) else EXIT_NOT_DONE


def error_as_json(error: BaseException) -> dict[str, Any]:  # JSON
    """Return an error as JSON: `error` and, where it has them, faults, known names and nodes."""
    fields: dict[str, Any] = {"error": message(error), "kind": type(error).__name__}
    if isinstance(error, ConfigurationError):
        fields["faults"] = list(error.faults)
    if isinstance(error, NodeError) and error.node:
        fields["node"] = error.node
    if isinstance(error, PartialFailureError):
        fields["failed"] = {_text(key): str(reason) for key, reason in error.failed.items()}
    known = getattr(error, "known", None) or getattr(error, "possibilities", None)
    if known:
        fields["known"] = list(known)
    return fields


def message(error: BaseException) -> str:
    """Return the text of an error."""
    if isinstance(error, click.ClickException):
        text = error.format_message().rstrip(".")
        return text[:1].lower() + text[1:] if text[:2].istitle() else text
    if isinstance(error, (ShardCacheError, OSError)):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}"


def _text(key: object) -> str:
    return key.decode(errors="backslashreplace") if isinstance(key, bytes) else str(key)


def _print(error: BaseException) -> None:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        say(escaped_lines(error.ctx.get_usage()), err=True)
        say(f"Try '{error.ctx.command_path} --help' for help.\n", err=True)
    if isinstance(error, ConfigurationError) and len(error.faults) > 1:
        say(f"error: {len(error.faults)} faults in the settings:", err=True)
        for fault in error.faults:
            say(f"  - {escaped(fault)}", err=True)
        return
    say(f"error: {escaped(message(error))}", err=True)
    if isinstance(error, PartialFailureError):
        reasons = {str(reason) for reason in error.failed.values()}
        for reason in sorted(reason for reason in reasons if reason not in str(error)):
            say(f"  - {escaped(reason)}", err=True)
    if not isinstance(error, (click.ClickException, ShardCacheError, OSError)):
        _print_traceback(error)


def _print_traceback(error: BaseException) -> None:
    """Print the traceback of an unexpected error to developers (`python -X dev`)."""
    if sys.flags.dev_mode:
        say(escaped_lines("".join(traceback.format_exception(error))), err=True)
    else:
        say("  this is a bug: `python -X dev -m shardcache` shows where it is", err=True)


def _report_abort(error: click.Abort, words: Sequence[str]) -> int:
    """Report Ctrl-C, or a question that was not answered."""
    interrupted = not isinstance(error.__cause__ or error.__context__, EOFError)
    if wants_json(words):
        print_json({"error": "interrupted" if interrupted else "no answer", "kind": "Abort"})
    elif not interrupted:
        say("error: no answer", err=True)
    return EXIT_INTERRUPTED if interrupted else EXIT_NOT_DONE


def flush_output(status: int) -> int:
    """Write buffered output; return the exit status, or another one if writing fails."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except BrokenPipeError:
        silence_output()
        return EXIT_PIPE
    except OSError as error:
        silence_stdout()
        if status == 0:  # else an error was reported already, most likely this one
            say(f"error: cannot write the output: {error.strerror}", err=True)
        return status or EXIT_NOT_DONE
    return status


def silence_stdout() -> None:
    """Discard the rest of the output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
