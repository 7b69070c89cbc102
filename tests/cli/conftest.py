"""How tests type commands: into a pipe, or on a terminal of a given width.

`typed` runs a command in the process of the tests, for a start of Python takes ten times as long as most
commands. What only a process shows (its streams, its signals, its terminal) is left to
`typed_in_a_process` and `on_terminal`.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import socketserver
import struct
import subprocess
import sys
import termios
import threading
from unittest import mock

import pytest

from shardcache.cli import main

COMMAND = (sys.executable, "-P", "-m", "shardcache.cli")

# What runs the tests may tune the output of every Python that it starts.
TUNING = ("PYTHONIOENCODING", "PYTHONUTF8", "PYTHONUNBUFFERED")
UNTUNED = {name: value for name, value in os.environ.items() if name not in TUNING}


def type_here(*words, stdin="", encoding="utf-8", **env):
    """Run a command here, with streams as pipes have them; return status, output and errors."""
    out, errors = io.BytesIO(), io.BytesIO()
    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding=encoding),
        "stdout": io.TextIOWrapper(out, encoding=encoding),
        "stderr": io.TextIOWrapper(errors, encoding=encoding, errors="backslashreplace"),
    }
    argv = ["shardcache", *map(str, words)]
    with (
        mock.patch.multiple(sys, argv=argv, **streams),
        mock.patch.dict(os.environ, {**UNTUNED, **env}, clear=True),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    streams["stdout"].flush()
    return _told(ended.value.code or 0, out.getvalue(), errors.getvalue())


def type_in_a_process(*words, stdin="", **env):
    """Run a command in a process of its own; return status, output and errors."""
    result = subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        input=stdin.encode(),
        env={**UNTUNED, **env},
        check=False,
    )
    return _told(result.returncode, result.stdout, result.stderr)


def _told(status, *streams):
    out, errors = (stream.decode("utf-8", "surrogateescape") for stream in streams)
    assert "Traceback" not in out + errors
    return status, out, errors


@pytest.fixture
def typed():
    """Run a command with its output in pipes, without a process; return status, output and errors."""
    return type_here


@pytest.fixture
def typed_in_a_process():
    """Run a command with its output in pipes; return status, output and errors."""
    return type_in_a_process


@pytest.fixture
def on_terminal():
    """Run a command on a terminal; return its lines, without colours."""

    def run(*words, columns=80, answer="", **env):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        unset = {"COLUMNS", "LINES", "NO_COLOR"}
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**kept, "TERM": "xterm-256color", **env},
        )
        os.close(theirs)
        os.write(ours, answer.encode())
        shown = b""
        with contextlib.suppress(OSError):  # at its end a terminal raises
            while part := os.read(ours, 65536):
                shown += part
        os.close(ours)
        process.wait()
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
        assert "Traceback" not in text
        lines = text.replace("\r\n", "\n").split("\n")
        return [line.rpartition("\r")[2].rstrip() for line in lines]  # after a spinner

    return run


class _Answers(socketserver.StreamRequestHandler):
    """Answer each line with the same text, as a memcached that means harm."""

    def handle(self):
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                answers = self.server.answers
                self.wfile.write(answers["stats" if line.startswith(b"stats") else "other"])
                self.wfile.flush()


@pytest.fixture
def make_liar():
    """Start servers that answer `stats`, and all else, with given bytes; return the URL of one."""
    with contextlib.ExitStack() as stack:

        def start(other, stats):
            server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Answers)
            server.daemon_threads = True
            server.answers = {"other": other, "stats": stats}
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"memcached://127.0.0.1:{server.server_address[1]}"

        yield start
