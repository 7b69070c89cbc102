"""`demo`: what shardcache does, on in-process nodes or on real servers that it starts.

In-process nodes belong to one process. A stampede between processes is shown on real servers, if
this machine has any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import click
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from shardcache.cli import stampede
from shardcache.cli.output import (
    Sheet,
    bar,
    json_option,
    percent,
    print_json,
    show,
    with_progress,
    working,
)
from shardcache.cli.terminal import is_ascii
from shardcache.clients.blocking import Client
from shardcache.core.placement.movement import Movement, shares
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import Topology
from shardcache.errors import ConfigurationError
from shardcache.plugin.manager import load
from shardcache.testing.servers import Server, ServerMissingError, start_memcached, start_redis

KEYS: Final = 20_000
NODES: Final = 5
BATCH: Final = 2_000
STACK: Final = 40  # columns of a stacked bar
BAR: Final = 18
COLORS: Final = ("cyan", "green", "yellow", "magenta", "blue", "red")
LETTERS: Final = "#=+*-o"  # pieces of a bar where there are no block characters
TIMEOUT: Final = 2.0  # seconds; the client's default of 0.5 is for machines with one task

STARTERS: Final[dict[str, Callable[[], Server]]] = {
    "memcached": start_memcached,
    "redis": start_redis,
}


@click.command()
@click.option(
    "--servers",
    type=click.Choice(sorted(STARTERS)),
    help="Use real processes, started on free ports of 127.0.0.1 and stopped again.",
)
@json_option
def demo(servers: str | None, *, as_json: bool) -> None:
    """Show placement, node changes and a stampede.

    It takes a few seconds, and needs no server.
    """
    screen = Screen(quiet=as_json)
    keys = [f"user:{number}:profile" for number in range(KEYS)]
    with ExitStack() as stack:
        urls = stack.enter_context(_start_nodes(servers))
        screen.show_opening(servers)
        figures = {
            "keys": KEYS,
            "nodes": urls,
            "balance": _measure_balance(screen, keys, urls),
            "changes": _measure_changes(screen, keys, urls),
            "use": _measure_use(screen, keys, urls),
            "stampede": _measure_stampede(screen, servers, urls),
        }
    if as_json:
        print_json(figures)
    else:
        screen.show_closing()


@contextmanager
def _start_nodes(kind: str | None) -> Iterator[list[str]]:
    """Yield the URLs of one node more than the demo begins with; stop real servers at the end."""
    if kind is None:
        yield [f"memory://node-{number}" for number in range(1, NODES + 2)]
        return
    with ExitStack() as stack:
        urls = []
        for _ in range(NODES + 1):
            try:
                server = STARTERS[kind]()
            except ServerMissingError as error:
                raise ConfigurationError(str(error)) from error
            stack.callback(server.stop)
            urls.append(server.url)
        yield urls


def _topology(strategy: str, urls: Sequence[str]) -> Topology:
    return Topology(map(Node, urls), load().strategies[strategy]())


def _measure_balance(screen: Screen, keys: Sequence[str], urls: Sequence[str]) -> dict[str, Any]:
    """Measure with each strategy how evenly it places the keys."""
    figures: dict[str, Any] = {}
    encoded = [key.encode() for key in keys]
    for strategy in with_progress(list(load().strategies), "placing keys", quiet=screen.quiet):
        placement = _topology(strategy, urls[:NODES]).placement
        started = time.perf_counter()
        share_of = shares(placement, encoded)
        seconds = time.perf_counter() - started
        figures[strategy] = {"shares": dict(share_of), "seconds": seconds}
    screen.show_balance(figures)
    return figures


def _measure_changes(screen: Screen, keys: Sequence[str], urls: Sequence[str]) -> dict[str, Any]:
    """Measure with each strategy what moves when a sixth node joins, and when the fifth leaves."""
    figures: dict[str, Any] = {}
    encoded = [key.encode() for key in keys]
    for strategy in with_progress(list(load().strategies), "changing nodes", quiet=screen.quiet):
        before = _topology(strategy, urls[:NODES])
        grown = _topology(strategy, urls)
        shrunk = _topology(strategy, urls[: NODES - 1])
        figures[strategy] = {
            "added": Movement.between(before.placement, grown.placement, encoded).moved,
            "removed": Movement.between(before.placement, shrunk.placement, encoded).moved,
        }
    ideal = {"added": 1 / (NODES + 1), "removed": 1 / NODES}
    screen.show_changes(figures, ideal)
    return {"ideal": ideal, "strategies": figures}


def _measure_use(screen: Screen, keys: Sequence[str], urls: Sequence[str]) -> dict[str, Any]:
    """Write and read all keys through a client, add a node, and read them again."""
    with Client(urls[:NODES], timeout=TIMEOUT) as client:
        values = {key: {"name": key, "visits": len(key)} for key in keys}
        wrote, unstored = _measure_time(lambda: _write(client, values, screen))
        read, found = _measure_time(lambda: _read(client, keys, screen))
        change = client.add_node(urls[NODES])
        after_change = _read(client, keys, screen)
        figures = {
            "client": repr(client),
            "fingerprint": client.fingerprint,
            "unstored": unstored,
            "write_seconds": wrote,
            "read_seconds": read,
            "right": sum(found.get(key) == value for key, value in values.items()),
            "found_after_adding_a_node": len(after_change),
            "wrong_after_adding_a_node": sum(
                after_change[key] != values[key] for key in after_change
            ),
            "moved": change.movement.moved,
        }
    screen.show_use(figures)
    return figures


def _measure_stampede(screen: Screen, kind: str | None, urls: Sequence[str]) -> dict[str, Any]:
    """Have two hundred callers ask for one missing key."""
    shared = kind or stampede.installed_server()
    screen.show_crowd(shared)
    with ExitStack() as stack, working("two hundred callers, one key", quiet=screen.quiet):
        if shared is None:
            figures = stampede.among_threads()
        else:
            nodes = urls if kind else stack.enter_context(_start_nodes(shared))
            figures = stampede.among_processes(nodes[:NODES])
    screen.show_stampede(figures)
    return {"servers": shared, **figures}


def _write(client: Client, values: dict[str, Any], screen: Screen) -> int:
    batches = _batches(list(values))
    return sum(
        len(client.set_many({key: values[key] for key in batch}, ttl=300))
        for batch in with_progress(batches, "writing", quiet=screen.quiet)
    )


def _read(client: Client, keys: Sequence[str], screen: Screen) -> dict[Any, Any]:  # by our keys
    found: dict[Any, Any] = {}
    for batch in with_progress(_batches(keys), "reading", quiet=screen.quiet):
        found.update(client.get_many(batch))
    return found


def _batches(keys: Sequence[str]) -> list[Sequence[str]]:
    return [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]


def _measure_time(work: Callable[[], Any]) -> tuple[float, Any]:  # whatever the work returns
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


class Screen:
    """The demo's output for people; silent when a program reads the result."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def _say(self, *lines: Any) -> None:  # whatever rich prints
        if not self.quiet:
            show(*lines)

    def show_opening(self, servers: str | None) -> None:
        """Show what follows."""
        where = f"{NODES} real {servers} processes" if servers else f"{NODES} in-process nodes"
        self._say(
            Panel(
                f"[bold]shardcache[/]: one key space over many cache nodes\n"
                f"{KEYS:,} keys, {where}, one client",
                expand=False,
                border_style="cyan",
            )
        )

    def show_balance(self, figures: dict[str, Any]) -> None:
        """Show how evenly each strategy spreads the keys."""
        rows = Sheet("strategy", "share of each node", "least", "most", right=("least", "most"))
        for strategy, placed in figures.items():
            share_of = placed["shares"]
            rows.add(
                strategy,
                _stacked_bar(share_of),
                percent(min(share_of.values())),
                percent(max(share_of.values())),
            )
        self._say(
            "\n[bold]1. Each strategy spreads the keys in its own way.[/]",
            f"Perfectly even is {percent(1 / NODES)} per node.\n",
            rows,
        )

    def show_changes(self, figures: dict[str, Any], ideal: dict[str, float]) -> None:
        """Show what each strategy moves when nodes change."""
        rows = Sheet(
            "strategy",
            "a node joins",
            "",
            "a node leaves",
            " ",
            right=("a node joins", "a node leaves"),
            optional=("", " "),
        )
        for strategy, moved in figures.items():
            cells: list[str | Text] = [strategy]
            for change in ("added", "removed"):
                style = "green" if moved[change] < 1.3 * ideal[change] else "yellow"
                cells += [percent(moved[change]), bar(moved[change], BAR, style)]
            rows.add(*cells)
        self._say(
            "\n[bold]2. When nodes come and go, each moved key is a miss.[/]",
            f"With exactly even shares, {percent(ideal['added'])} and {percent(ideal['removed'])} of"
            " the keys must move.\n",
            rows,
        )

    def show_use(self, figures: dict[str, Any]) -> None:
        """Show what the client did."""
        after = figures["found_after_adding_a_node"]
        self._say(
            "\n[bold]3. The client asks all nodes at once, and nodes change while it works.[/]\n",
            f"   wrote {KEYS - figures['unstored']:,} values in {figures['write_seconds']:.2f} s,"
            f" read them in {figures['read_seconds']:.2f} s",
            f"   [green]{figures['right']:,} of {KEYS:,} right[/]",
            f"   a node joined: {percent(figures['moved'])} of the key space moved to it",
            f"   {after:,} keys are still found ({percent(after / KEYS)}),"
            f" {figures['wrong_after_adding_a_node']} wrong",
            f"   {escape(figures['client'])}",
        )

    def show_crowd(self, servers: str | None) -> None:
        """Show how many callers want the value."""
        crowd, processes = stampede.PROCESSES * stampede.THREADS, stampede.PROCESSES
        if servers:
            who = f"{crowd} callers in {processes} processes, over {NODES} real {servers} nodes,"
        else:
            who = f"{crowd} threads"
        self._say(
            "\n[bold]4. When a hot value is missing, one caller recomputes it for all.[/]",
            f"{who} want one key at once;",
            f"the function behind it takes {stampede.SECONDS * 1000:.0f} ms.\n",
        )

    def show_stampede(self, figures: dict[str, Any]) -> None:
        """Show how often the value was recomputed."""
        rows = Sheet("", "calls of the function", " ", "longest wait", right=("longest wait",))
        most = figures["unprotected"]["runs"]
        cases: dict[str, str | Text] = {
            "unprotected": "a plain cache",
            "protected": Text("lock=True", "bold"),
        }
        for case, name in cases.items():
            measured = figures[case]
            style = "red" if case == "unprotected" else "green"
            rows.add(
                name,
                str(measured["runs"]),
                bar(measured["runs"] / most, STACK // 2, style),
                f"{measured['longest'] * 1000:.0f} ms",
            )
        self._say(rows)
        killed = figures.get("killed")
        if killed is None:
            self._say("\n   with memcached or Redis installed: the same between processes")
            return
        others = (figures["processes"] - 1) * figures["threads"]
        self._say(
            "\n   Again, but the process that recomputes is killed half-way:",
            f"   another took over {killed['again_after']:.1f} s later, when the lock had expired,",
            f"   and [green]{killed['right']} of the {others} others got the value[/];"
            f" calls of the function: {killed['runs']}",
        )

    def show_closing(self) -> None:
        """Show what to try next."""
        self._say(
            "\nWhat would your own change move?",
            "   [cyan]shardcache plan --url memcached://a,b,c --add memcached://d[/]",
            "The same on real servers:",
            "   [cyan]shardcache demo --servers memcached[/]",
        )


def _stacked_bar(share_of: dict[str, float]) -> Text:
    """Return one bar with a piece for each node, as long as its share."""
    stacked = Text()
    reached = 0.0
    ascii_only = is_ascii()
    for place, share in enumerate(share_of.values()):
        start, reached = round(reached * STACK), reached + share
        piece = LETTERS[place % len(LETTERS)] if ascii_only else "█"
        stacked.append(piece * (round(reached * STACK) - start), COLORS[place % len(COLORS)])
    return stacked
