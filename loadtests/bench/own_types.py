"""What a declared type costs: rows as dataclasses, Structs and models, against pickle and plain dicts."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import pydantic

from bench.rounds import Subject, Timing, run_interleaved
from shardcache import Client

CALLS = 200


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


def hits(rows: int, rounds: int) -> dict[str, Timing]:
    """Measure a hit of a cached function that returns so many rows, over in-process nodes."""
    return _measure(rows, rounds, lambda cached: cached)


def recomputes(rows: int, rounds: int) -> dict[str, Timing]:
    """Measure a recompute of it: the result is stored, and read back once for its caller."""
    return _measure(rows, rounds, lambda cached: cached.refresh)


def _measure(rows: int, rounds: int, call: Callable[[Any], Subject]) -> dict[str, Timing]:
    # Pickle needs a secret, so all have one.
    with Client("memory://a", secret="at least sixteen bytes") as client:
        cached = _functions(client, rows)
        subjects = {name: _repeat(call(function)) for name, function in cached.items()}
        for name, function in cached.items():
            if function() != function.bypass():
                raise AssertionError(name)
        return run_interleaved(subjects, calls=CALLS, rounds=rounds)


def _functions(client: Client, rows: int) -> dict[str, Any]:
    """Return cached functions of one result in many forms."""
    data = [_row(number) for number in range(rows)]
    structs = [StructRow(**vars(row)) for row in data]
    models = [ModelRow(**vars(row)) for row in data]
    plain = [{**asdict(row), "state": row.state.value} for row in data]
    pickled = {"codec": "pickle"}
    forms: dict[str, tuple[Any, dict[str, Any]]] = {
        "pickle, dataclass": (data, pickled),
        "pickle, Struct": (structs, pickled),
        "pickle, model": (models, pickled),
        "dicts, no type": (plain, {}),
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


def _repeat(call: Subject) -> Subject:
    def run() -> None:
        for _ in range(CALLS):
            call()

    return run
