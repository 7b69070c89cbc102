"""What a declared type costs: rows as dataclasses, Structs and models, against pickle and plain dicts."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import pydantic

from bench.bench import Bench
from bench.rounds import Figure, Figures, Subject
from shardcache import Client

CALLS = 200
ROWS = (1, 50)


class State(enum.StrEnum):
    """A field of a row."""

    OPEN = "open"


@dataclass
class DataRow:
    """A row as a dataclass."""

    number: int
    identity: UUID
    name: str
    price: float
    state: State
    at: datetime
    tags: list[str]


class StructRow(msgspec.Struct):
    """A row as a Struct of msgspec's."""

    number: int
    identity: UUID
    name: str
    price: float
    state: State
    at: datetime
    tags: list[str]


class ModelRow(pydantic.BaseModel):
    """A row as a model of Pydantic's."""

    number: int
    identity: UUID
    name: str
    price: float
    state: State
    at: datetime
    tags: list[str]


def measure(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Measure hits and recomputes of functions that return rows, over in-process nodes."""
    for rows in ROWS:
        yield _title("a hit", rows), _measure(bench, rows, lambda cached: cached)
        yield _title("a recompute", rows), _measure(bench, rows, lambda cached: cached.refresh)


def _title(work: str, rows: int) -> str:
    return f"own types, {work} of {rows} row{'s' if rows > 1 else ''}"


def _measure(
    bench: Bench, rows: int, call: Callable[[Any], Callable[[], object]]
) -> dict[str, Figure]:
    # Pickle needs a secret, so all have one.
    with Client("memory://a", secret="at least sixteen bytes") as client:
        cached = _functions(client, rows)
        for name, function in cached.items():
            if function() != function.bypass():
                raise AssertionError(name)
        subjects = {name: _repeat(call(function)) for name, function in cached.items()}
        return bench.interleave(subjects, calls=CALLS)


def _functions(client: Client, rows: int) -> dict[str, Any]:
    """Return cached functions of one result in many forms."""
    data = [_row(number) for number in range(rows)]
    structs = [StructRow(**vars(row)) for row in data]
    models = [ModelRow(**vars(row)) for row in data]
    plain = [{**asdict(row), "state": row.state.value} for row in data]
    bare = [{**row, "identity": str(row["identity"]), "at": str(row["at"])} for row in plain]
    pickled = {"codec": "pickle"}
    forms: dict[str, tuple[Any, dict[str, Any]]] = {
        "pickle, dataclass": (data, pickled),
        "pickle, Struct": (structs, pickled),
        "pickle, model": (models, pickled),
        "dicts, no type": (plain, {}),
        "dicts of plain types": (bare, {}),
        "returns=, dataclass": (data, {"returns": list[DataRow]}),
        "returns=, Struct": (structs, {"returns": list[StructRow]}),
        "returns=, model": (models, {"returns": list[ModelRow]}),
    }
    return {
        name: client.cached(ttl=3600, namespace=name, **options)(partial(_same, result))
        for name, (result, options) in forms.items()
    }


def _row(number: int) -> DataRow:
    return DataRow(
        number=number,
        identity=UUID(int=number),
        name=f"row {number}",
        price=number / 4,
        state=State.OPEN,
        at=datetime(2024, 1, 1, 12, number % 60, tzinfo=UTC),
        tags=["red", "blue"],
    )


def _same(result: object) -> object:
    return result


def _repeat(call: Callable[[], object]) -> Subject:
    def run(calls: int) -> None:
        for _ in range(calls):
            call()

    return run
