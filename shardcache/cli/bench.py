"""`bench`: how fast calls are on one's own nodes, against plain sockets."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from shardcache.cli.connect import client_options, open_client
from shardcache.cli.measuring import Load, Measurement, Result, Step
from shardcache.cli.output import (
    UNKNOWN,
    Sheet,
    exits_by,
    json_option,
    print_json,
    show,
    with_progress,
)
from shardcache.cli.readings import number_of
from shardcache.cli.terminal import say
from shardcache.clients.blocking import Client
from shardcache.errors import NodeError

UNITS: Final = {"": 1, "B": 1, "KB": 1000, "KIB": 1024, "MB": 1000**2, "MIB": 1024**2}
LARGEST: Final = 512 * 1024**2  # bytes, as Redis has it
NUMBERS: Final = ("value", "calls/s", "p50", "p99", "CPU", "over raw")

_keys_of_database = re.compile(r"keys=([0-9]{1,20})\b").match


class Size(click.ParamType):  # type: ignore[type-arg]  # it takes no argument before click 8.3
    """A number of bytes with a unit: `500`, `100B`, `10KiB`, `1MB`."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:  # what was typed
        """Return the bytes that a text names."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"\s*([0-9]{1,12})\s*([A-Za-z]*)\s*", value)
        unit = None if found is None else UNITS.get(found[2].upper())
        if found is None or unit is None:
            self.fail(f"{value!r} is no size: write 500, 100B, 10KiB or 1MB", param, ctx)
        size = int(found[1]) * unit
        if not 1 <= size <= LARGEST:
            self.fail(f"{value!r} is not between 1 B and 512 MiB", param, ctx)
        return size


@click.command()
@click.option(
    "--size",
    "sizes",
    metavar="SIZE",
    multiple=True,
    type=Size(),
    default=("100B", "10KiB"),
    help="The size of the values: 500, 100B, 10KiB, 1MB (default: 100B and 10KiB). For several sizes"
    " repeat the option.",
)
@click.option(
    "--keys",
    metavar="N",
    type=click.IntRange(1, 1_000_000),
    help="How many keys there are (default: 1000, or as many as 16 MiB of values).",
)
@click.option(
    "--batch",
    metavar="N",
    type=click.IntRange(2, 100_000),
    help="How many keys a get_many or set_many has; --keys at most (default: 100, or as many as 2 MiB"
    " of values).",
)
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="How many threads call at once, through one client.",
)
@click.option(
    "--seconds",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help="The time of each operation with each size.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="Measure nodes that hold keys without asking; needed in scripts and with --json.",
)
@client_options
@json_option
@exits_by
def bench(  # noqa: PLR0913 - each is an option
    urls: tuple[str, ...],
    config: str | None,
    *,
    sizes: tuple[int, ...],
    keys: int | None,
    batch: int | None,
    threads: int,
    seconds: float,
    yes: bool,
    as_json: bool,
) -> bool:
    """Measure get, set, get_many and set_many on each kind of node.

    It writes keys under its own namespace, and deletes them at the end, after Ctrl-C too. Nodes
    that hold keys are not measured unless you say so: it loads them, and may evict values. Calls take
    turns with plain sockets that send and receive the same; `over raw` is how many times their median
    a call takes, a dash where they cannot ask the nodes (TLS, in-process nodes) or find a key gone.
    CPU is that of this process a call. Lines below the table tell of keys that were gone and of calls
    that failed. Exit with 1 when nothing was measured.
    """
    load = Load(sizes, keys, batch, threads, seconds)
    with open_client(urls, config) as client:
        held = _count_keys(client)
        if held and not yes and not _confirm(held, load, can_ask=_can_ask() and not as_json):
            say("not measured", err=True)
            return False
        measurement = Measurement(client, load)
        with measurement.cleaned_up():
            steps = with_progress(measurement.steps, "measuring", quiet=as_json)
            results = [measurement.measure(step) for step in steps]
    if as_json:
        print_json([_as_json(result, load) for result in results])
    else:
        _show(results, load)
    return True


def _count_keys(client: Client) -> int:
    """Return how many keys the nodes hold, whosever they are; raise the error of a node that is down."""
    count = 0
    for figures in client.stats().values():
        server = figures.server
        if isinstance(server, NodeError):
            raise server
        count += number_of(server.get("curr_items", server.get("entries", "0")))
        for name, text in server.items():
            if re.fullmatch(r"db[0-9]+", name) and (found := _keys_of_database(text)):
                count += int(found[1])
    return count


def _confirm(held: int, load: Load, *, can_ask: bool) -> bool:
    """Ask whether to measure nodes that hold keys; where no one can answer, `--yes` is required."""
    stored = _size(max(load.keys_of(size) * size for size in load.sizes))
    keys = "1 key" if held == 1 else f"{held:,} keys"
    told = f"the nodes hold {keys}; bench loads them, and stores up to {stored} of each kind"
    if not can_ask:
        raise click.UsageError(f"{told}: pass --yes where it cannot prompt")
    return click.confirm(f"{told}, which may evict values: measure?", err=True)


def _can_ask() -> bool:
    return sys.stdin.isatty()


def _show(results: Sequence[Result], load: Load) -> None:
    rows = Sheet("call", "on", *NUMBERS, right=NUMBERS)
    for result in results:
        step, timing, ratio = result.step, result.timing, result.over_raw
        rows.add(
            _name(step, load),
            step.kind,
            _size(step.size),
            f"{timing.operations_per_second:,.0f}",
            _microseconds(timing.p50_seconds),
            _microseconds(timing.p99_seconds),
            _microseconds(timing.cpu_seconds),
            UNKNOWN if ratio is None else f"{ratio:.2f} ×",
        )
    show(rows)
    for result in results:
        step = result.step
        where = f"{_name(step, load)} of {_size(step.size)} on {step.kind}"
        if result.missed:
            say(
                f"{where}: {result.missed:.0%} of the keys were gone, so the figures are of misses too:"
                " the nodes evict; use fewer --keys"
            )
        if result.error is not None:
            say(
                f"{where}: {result.failed:,} of {result.timing.calls:,} calls failed, the last: {result.error}"
            )


def _name(step: Step, load: Load) -> str:
    many = step.operation.endswith("many")
    return f"{step.operation}({load.batch_of(step.size):,})" if many else step.operation


def _as_json(result: Result, load: Load) -> dict[str, Any]:  # JSON
    step = result.step
    return {
        "operation": step.operation,
        "kind": step.kind,
        "size": step.size,
        "batch": load.batch_of(step.size) if step.operation.endswith("many") else 1,
        "threads": load.threads,
        **result.timing._asdict(),
        "missed": result.missed,
        "failed": result.failed,
        "raw": None if result.raw is None else result.raw._asdict(),
        "over_raw": result.over_raw,
    }


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs"


def _size(size: int) -> str:
    """Return a number of bytes in the largest unit that it fills."""
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} B"
