"""How results are shown: tables and bars for people, JSON for programs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

EXIT_NOT_DONE: Final = 1
EXIT_USAGE: Final = 2
EIGHTHS: Final = " ▏▎▍▌▋▊▉"

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def console() -> Console:
    """Give the console of standard output; plain text when that is no terminal."""
    return Console(highlight=False)


def json_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--json`, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def print_json(value: Any) -> None:  # whatever JSON holds, and what `str` makes of the rest
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def bar(share: float, width: int, style: str = "cyan") -> Text:
    """Give a bar of `share`, 0 to 1, of `width` columns, exact to an eighth of one."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    drawn = "█" * full + (EIGHTHS[rest] if rest else "")
    return Text(drawn.ljust(width), style=style)


def percent(share: float) -> str:
    """Give a share, 0 to 1, in percent with one digit."""
    return f"{share * 100:.1f} %"


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Make a table without lines; the columns named in `right` are aligned there."""
    made = Table(box=None, pad_edge=False)
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            header_style="dim",
            overflow="fold",
        )
    return made


def tracked(items: Sequence[T], text: str, *, quiet: bool) -> Iterator[T]:
    """Give the items one by one, under a progress bar on standard error when it is a terminal."""
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=errors, transient=True, disable=quiet or not errors.is_terminal
    ) as progress:
        yield from progress.track(items, description=text)


@contextmanager
def working(text: str, *, quiet: bool) -> Iterator[None]:
    """Show on standard error, when it is a terminal, that something of unknown length goes on."""
    errors = Console(stderr=True)
    if quiet or not errors.is_terminal:
        yield
        return
    with errors.status(text):
        yield


def exits_by(command: Callable[P, bool]) -> Callable[P, None]:
    """Let a command say by `True` or `False` whether it was done: exit status 0 or 1."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        if not command(*args, **kwargs):
            click.get_current_context().exit(EXIT_NOT_DONE)

    return run


def read_keys(path: str | None) -> list[str] | None:
    """Give the keys of a file, one a line (`-`: standard input); `None` without a file."""
    if path is None:
        return None
    with click.open_file(path, encoding="utf-8") as lines:
        keys = [line.rstrip("\r\n") for line in lines]
    keys = [key for key in keys if key]
    if not keys:
        raise click.UsageError(f"{path} holds no keys")
    return keys


def rows_of(table_: Table, rows: Iterable[Sequence[str | Text]]) -> Table:
    """Add rows to a table, and give it."""
    for row in rows:
        table_.add_row(*row)
    return table_
