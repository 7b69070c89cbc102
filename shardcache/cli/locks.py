"""`locks`: who holds which lock, and how to take one away."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import click

from shardcache.cli.connect import client_options, open_client
from shardcache.cli.output import Sheet, exits_by, json_option, print_json, show
from shardcache.cli.terminal import escaped, say
from shardcache.clients.base import cluster_of
from shardcache.core.lock_providers import Holder, LockScope
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.locks.acquire import break_lock, find_holder, list_holders
from shardcache.operations.port import run


@click.command()
@click.argument("name", required=False)
@click.option("--break", "broken", metavar="NAME", help="Take the lock NAME away from its holder.")
@click.option("--recompute", is_flag=True, help="NAME is the key of a cached value, not a lock.")
@click.option("--locks", "service", metavar="URL", help="Who keeps locks (default: the settings).")
@click.option("--yes", is_flag=True, help="Do not ask; needed in scripts and with --json.")
@client_options
@json_option
@exits_by
def locks(  # noqa: PLR0913 - each is an option
    name: str | None,
    broken: str | None,
    service: str | None,
    urls: tuple[str, ...],
    config: str | None,
    *,
    recompute: bool,
    yes: bool,
    as_json: bool,
) -> bool:
    """Show who holds the lock NAME, since when, and for how long still.

    Without NAME list all locks of the client's namespace. Cache nodes cannot list them, and know no
    holder: they tell for how long they keep a lock by its name. Exit with 1 when it is free.
    """
    if name is not None and broken is not None:
        raise click.UsageError("give NAME or --break NAME, not both")
    scope = LockScope.RECOMPUTE if recompute else LockScope.CALLER
    with open_client(urls, config, locks=service) as client:
        cluster = cluster_of(client)
        if broken is not None:
            return _break(cluster, broken, scope, can_ask=not as_json, yes=yes, as_json=as_json)
        if name is None:
            _print([*run(lambda: list_holders(cluster))], cluster, as_json=as_json)
            return True
        holder = run(lambda: find_holder(cluster, name, scope))
    if holder is None and not as_json:
        say(f"{escaped(name)}: not held", err=True)
    else:
        _print([] if holder is None else [holder], cluster, as_json=as_json)
    return holder is not None


def _break(  # noqa: PLR0913 - the lock, and how to ask and answer
    cluster: Cluster, name: str, scope: LockScope, *, can_ask: bool, yes: bool, as_json: bool
) -> bool:
    """Take a lock away, after a question; return whether anybody held it."""
    holder = run(lambda: find_holder(cluster, name, scope))
    if holder is not None and not yes:
        if not _confirm(name, holder, can_ask=can_ask):
            say("not taken away", err=True)
            return False
        asked, holder = holder, run(lambda: find_holder(cluster, name, scope))
        if holder is not None and _is_another(holder, asked):  # the answer may have taken long
            say(f"{escaped(name)}: another client holds it now; not taken away", err=True)
            return False
    broken = holder is not None and run(lambda: break_lock(cluster, name, scope))
    if as_json:
        print_json({"name": name, "broken": broken})
    else:
        say(f"{escaped(name)}: {'taken away' if broken else 'not held'}", err=not broken)
    return broken


def _confirm(name: str, holder: Holder, *, can_ask: bool) -> bool:
    """Ask whether to take the lock away; where no one can answer, `--yes` is required."""
    if not (can_ask and _can_ask()):
        raise click.UsageError("--break takes a lock away: pass --yes where it cannot prompt")
    since = "" if holder.since is None else f" since {_time(holder.since)}"
    owner = holder.owner or "its holder"
    question = f"take the lock {escaped(name)} away from {escaped(owner)}{since}?"
    return click.confirm(question, err=True)


def _is_another(holder: Holder, asked: Holder) -> bool:
    """Return whether the lock has changed hands, as far as its provider can tell."""
    return (holder.owner, holder.fence) != (asked.owner, asked.fence)


def _can_ask() -> bool:
    return sys.stdin.isatty()


def _print(holders: list[Holder], cluster: Cluster, *, as_json: bool) -> None:
    """Print the locks of the client's namespace, by the names that its programs use."""
    known = [(cluster.keys.original(holder.name), holder) for holder in holders]
    named = sorted(
        ((key.decode(errors="backslashreplace"), holder) for key, holder in known if key),
        key=lambda each: (each[0], each[1].scope.value),
    )
    if as_json:
        print_json([_as_json(name, holder) for name, holder in named])
        return
    if not named:
        say("no lock is held")
        return
    rows = Sheet("lock", "for", "held by", "since", "left", "fence", right=("left", "fence"))
    for name, holder in named:
        since = "" if holder.since is None else _time(holder.since)
        left = "" if holder.remaining is None else f"{holder.remaining:.1f} s"
        fence = "" if holder.fence is None else str(holder.fence)
        rows.add(name, holder.scope.value, holder.owner or "", since, left, fence)
    show(rows)


def _as_json(name: str, holder: Holder) -> dict[str, Any]:  # JSON
    return {**holder._asdict(), "name": name, "scope": holder.scope.value}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
