"""How commands fail: JSON where it was asked for, statuses, interrupts and closed pipes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shardcache.cli.errors import report_error

DOWN = "memcached://127.0.0.1:1"
MEMORY = "memory://a,b"
COMMAND = (sys.executable, "-P", "-m", "shardcache.cli")
FULL = Path("/dev/full")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["get", "k", "--url", DOWN], 1),
        (["set", "k", "v", "--url", DOWN], 1),
        (["delete", "k", "l", "--url", DOWN], 1),
        (["get", "", "--url", MEMORY], 2),
        (["get", "k", "--url", "nonsense"], 2),
        (["get"], 2),
        (["get", "k", "--no-such-option"], 2),
        (["set", "k", "v", "--ttl", "soon", "--url", MEMORY], 2),
        (["plan", "--remove", "z", "--url", MEMORY], 2),
        (["no-such-command"], 2),
    ],
)
def test_an_error_is_json_where_that_was_asked_for(typed, words, status):
    """One object on standard output, nothing on the other, and the same exit status."""
    with_json, out, errors = typed(*words, "--json")
    told = json.loads(out)
    assert (with_json, errors) == (status, "")
    assert isinstance(told["error"], str)
    without, out, errors = typed(*words)
    assert (without, out) == (status, "")
    assert told["error"].splitlines()[0] in errors


def test_what_an_error_knows_is_in_its_json(typed):
    """All faults one by one, the names that are known, and why each key failed."""
    _, out, _ = typed("nodes", "--json", "--url", "memory://a?timeout=x&on_error=y")
    assert len(json.loads(out)["faults"]) == 2
    _, out, _ = typed("plan", "--strategy", "kettle", "--json", "--url", MEMORY)
    assert "rendezvous" in json.loads(out)["known"]
    _, out, _ = typed("delete", "k", "l", "--json", "--url", DOWN)
    assert all("refused" in reason for reason in json.loads(out)["failed"].values())
    _, out, _ = typed("get", "k", "--json", "--url", DOWN)
    assert json.loads(out)["node"] == "127.0.0.1:1"


def test_a_key_that_looks_like_the_option_asks_for_nothing(typed):
    """After `--` there are no options."""
    status, out, errors = typed("get", "--url", DOWN, "--", "--json")
    assert (status, out) == (1, "")
    assert "error: 127.0.0.1:1: cannot be reached" in errors


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_bug_is_reported_in_a_line(capsys, more):
    """What nobody foresaw is an error with a status as well."""
    status = report_error(RuntimeError("surprise\x1b[2J"), more)
    shown = capsys.readouterr()
    told = json.loads(shown.out)["error"] if more else shown.err
    assert status == 1
    assert r"unexpected RuntimeError: surprise" in told
    assert "\x1b" not in shown.out + shown.err


# The demo with few keys: what comes before its crowd of processes takes no time then.
SHORT_DEMO = "from shardcache.cli import demo, main; demo.KEYS = 500; main()"


def interrupted(*command, after, pause=0.0):
    """Start a command, interrupt it once it has printed `after`, as Ctrl-C does."""
    process = subprocess.Popen(
        [sys.executable, "-P", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    shown = ""
    while after not in shown:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        shown += line
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all processes of the command
    out, errors = process.communicate(timeout=30)
    return process.returncode, shown + out, errors


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.3, 1.0])
def test_ctrl_c_ends_with_130_and_nothing_more(pause):
    """Neither the command nor the processes that it started print a traceback."""
    words = ("-c", SHORT_DEMO, "demo", "--servers", "memcached")
    status, out, errors = interrupted(*words, after="4. When a hot", pause=pause)
    assert (status, errors.strip()) == (130, "")
    assert "Traceback" not in out


def test_ctrl_c_is_json_where_that_was_asked_for():
    """A program that reads JSON gets an object then, too."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"memcached://127.0.0.1:{silent.getsockname()[1]}?timeout=60"
        process = subprocess.Popen(
            [*COMMAND, "get", "k", "--json", "--url", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(4096)  # it has asked: before that it could not answer in JSON
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (130, "")
    assert json.loads(out)["error"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["nodes"], ["nodes", "--json"], ["get", "k"], ["--help"], ["where", *map(str, range(999))]],
)
@pytest.mark.parametrize("closed", ["stdout", "both"])
def test_a_reader_that_leaves_early_is_no_error(words, closed):
    """With the pipe closed (`| head`) a command ends in silence."""
    ours, theirs = os.pipe()
    os.close(ours)
    process = subprocess.Popen(
        [*COMMAND, *words],
        env={**os.environ, "SHARDCACHE_URL": MEMORY},
        stdout=theirs,
        stderr=theirs if closed == "both" else subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    _, errors = process.communicate(timeout=30)
    if words[0] != "get":
        assert process.returncode in {1, 141}
        assert not errors


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_reported(unbuffered):
    """Output that cannot be written is an error, in a line: at once, or when it is flushed."""
    with FULL.open("w") as full:
        result = subprocess.run(
            [*COMMAND, "nodes", "--url", MEMORY],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("closed", "words"), [("1", "nodes"), ("2", "get k")])
def test_a_stream_that_was_closed_from_the_start(closed, words):
    """A command that may not print does its work, and prints nothing elsewhere."""
    command = f"{' '.join(COMMAND)} {words} --url {MEMORY} {closed}>&-"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == (0 if words == "nodes" else 1)
    assert (result.stdout, result.stderr) == ("", "")
