"""How results are printed: tables and bars for people, JSON for programs."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, TypeVar

import click
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from shardcache.cli.terminal import ASCII, is_ascii, jsonable, say, styled

EXIT_NOT_DONE: Final = 1
EXIT_USAGE: Final = 2
EIGHTHS: Final = " ▏▎▍▌▋▊▉"
PIPED: Final = 100_000  # columns: a line for a program is never cut or wrapped
UNKNOWN: Final = "–"
WRAPS_AT: Final = 24  # columns: a table does not wrap sentences more narrowly

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def console() -> Console:
    """Return the console of standard output; plain text of any length when that is not a terminal."""
    piped = not sys.stdout.isatty()
    return Console(
        file=sys.stdout,
        highlight=False,
        emoji=False,
        width=PIPED if piped else None,
    )


def show(*parts: Any) -> None:  # whatever rich prints
    """Print for people; only text written in this package may hold markup."""
    out = console()
    if out.width != PIPED and not out.options.ascii_only:
        out.print(*parts, sep="\n")
        return
    with out.capture() as captured:
        out.print(*parts, sep="\n")
    text = captured.get()
    if out.options.ascii_only:
        text = text.translate(ASCII)
    # A table is padded to its width: trailing spaces have no place in a file.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in text.splitlines()))
    sys.stdout.flush()


@contextmanager
def drawing() -> Iterator[Callable[..., None]]:
    """Yield a function that shows its arguments on the terminal, in place of what it showed before."""
    out = console()
    with Live(console=out, auto_refresh=False) as live:

        def draw(*parts: RenderableType) -> None:
            view = Group(*parts)
            live.update(_in_ascii(out, view) if out.options.ascii_only else view, refresh=True)

        yield draw


def _in_ascii(out: Console, view: RenderableType) -> Group:
    return Group(
        *(
            Text.assemble(*((part.text.translate(ASCII), part.style or "") for part in line))
            for line in out.render_lines(view, pad=False)
        )
    )


def json_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--json`, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def print_json(value: Any, *, indent: int | None = 2) -> None:  # of any type
    """Print a value as JSON in ASCII, which every terminal shows and none obeys."""
    say(json.dumps(jsonable(value), indent=indent))


def bar(share: float, width: int, style: str = "cyan") -> Text:
    """Return a bar of `share`, 0 to 1, `width` columns wide, exact to an eighth of a column."""
    share = max(0.0, min(1.0, share))
    if is_ascii():
        return Text(("#" * round(share * width)).ljust(width), style=style)
    full, rest = divmod(round(share * width * 8), 8)
    drawn = "█" * full + (EIGHTHS[rest] if rest else "")
    return Text(drawn.ljust(width), style=style)


def percent(share: float) -> str:
    """Return a share, 0 to 1, in percent with one digit."""
    return f"{share * 100:.1f} %"


def milliseconds(seconds: float | None) -> str:
    """Return a duration in milliseconds, or a dash for `None`."""
    return "–" if seconds is None else f"{seconds * 1000:.2f} ms"


class Sheet:
    """A table that never cuts its cells: on a narrow terminal it drops columns, or becomes a list.

    Columns in `right` are right-aligned. Columns in `optional` are dropped first. The column `wraps` may
    be wrapped between words, or moved below the table. `str` cells are untrusted text: markup in them has
    no effect.
    """

    def __init__(
        self,
        *columns: str,
        right: Sequence[str] = (),
        optional: Sequence[str] = (),
        wraps: str | None = None,
    ) -> None:
        self._columns = columns
        self._right = right
        self._optional = optional
        self._wraps = wraps
        self._rows: list[tuple[Text, ...]] = []

    def add(self, *cells: str | Text) -> None:
        """Add a row, a cell for each column."""
        row = (cell if isinstance(cell, Text) else styled(cell) for cell in cells)
        self._rows.append(tuple(row))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = self._table(self._columns)
        lean = self._table([name for name in self._columns if name not in self._optional])
        for table in (whole, lean):
            if self._width(table, console, options, wraps=self._wraps) <= options.max_width:
                yield table
                return
        if self._wraps is not None:
            noted = self._table([name for name in self._columns if name not in self._dropped])
            if self._width(noted, console, options, wraps=None) <= options.max_width:
                yield noted
                yield from self._notes()
                return
        yield from self._as_list()

    @property
    def _dropped(self) -> set[str | None]:
        return {*self._optional, self._wraps}

    def _notes(self) -> Iterator[Text]:
        """Yield the cells of the wrapping column as lines below the table, after their rows' names."""
        place = self._columns.index(self._wraps or "")
        for row in self._rows:
            if row[place].plain:
                yield Text.assemble(row[0], ": ", row[place])

    def _table(self, columns: Sequence[str]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in columns:
            table.add_column(
                name.strip(),
                justify="right" if name in self._right else "left",
                header_style="dim",
                no_wrap=name != self._wraps,
                overflow="fold",
            )
        places = [self._columns.index(name) for name in columns]
        for row in self._rows:
            table.add_row(*(row[place] for place in places))
        return table

    def _width(
        self, table: Table, console: Console, options: ConsoleOptions, *, wraps: str | None
    ) -> int:
        """Return the width that a table needs, with the wrapping column as narrow as it may be."""
        needed = Measurement.get(console, options.update(width=PIPED), table).maximum
        if wraps is None:
            return needed
        place = self._columns.index(wraps)
        longest = max((row[place].cell_len for row in self._rows), default=0)
        return needed - max(0, longest - WRAPS_AT)

    def _as_list(self) -> Iterator[Text]:
        """Yield each row as a few lines, with a heading before each cell."""
        names = [name.strip() for name in self._columns]
        widest = max(map(len, names))
        for first, *rest in self._rows:
            yield first
            for name, written, cell in zip(self._columns[1:], names[1:], rest, strict=True):
                if cell.plain.strip() and name not in self._optional:
                    yield Text.assemble((f"  {written:{widest}}  ", "dim"), cell)


def with_progress(items: Sequence[T], text: str, *, quiet: bool) -> Iterator[T]:
    """Yield the items one by one, under a progress bar on standard error when it is a terminal."""
    errors = Console(file=sys.stderr)
    if quiet or not errors.is_terminal:
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        yield from progress.track(items, description=text)


@contextmanager
def working(text: str, *, quiet: bool) -> Iterator[None]:
    """Show a spinner on standard error, when it is a terminal, until the block ends."""
    errors = Console(file=sys.stderr)
    if quiet or not errors.is_terminal:
        yield
        return
    with errors.status(text, spinner="line" if errors.options.ascii_only else "dots"):
        yield


def exits_by(command: Callable[P, bool]) -> Callable[P, None]:
    """Turn the result of a command into its exit status: `True` into 0, `False` into 1."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        if not command(*args, **kwargs):
            click.get_current_context().exit(EXIT_NOT_DONE)

    return run


def read_keys(path: str | None) -> list[str] | None:
    """Return the keys of a file, one per line (`-`: standard input); `None` without a file."""
    if path is None:
        return None
    try:
        with click.open_file(path, encoding="utf-8") as file:
            keys = [line.rstrip("\r\n") for line in file]
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not UTF-8") from None
    keys = [key for key in keys if key]
    if not keys:
        raise click.UsageError(f"{path} holds no keys")
    return keys
