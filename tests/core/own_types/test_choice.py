"""Which library handles a type, and which type a function declares."""

from __future__ import annotations

import functools
import sys
from pathlib import PurePosixPath
from typing import Annotated

import pydantic
import pytest

from core.own_types.samples import Colour, Holder, Mixed, Model, Page, Point, Struct, WithPath
from shardcache.core.own_types.choice import declare, declared_by
from shardcache.errors import ConfigurationError


@pytest.fixture
def without(monkeypatch):
    """Return a function that makes a library impossible to import."""
    return lambda name: monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("kind", [Point, list[Point], Struct, Colour, int, Page[int]], ids=str)
def test_msgspec_handles_what_has_no_model(without, kind):
    """Pydantic is not needed for it, nor does it take over."""
    without("pydantic")
    assert declare(kind).rich.dumps
    without("msgspec")
    with pytest.raises(ConfigurationError, match="needs the extra `msgspec`: pip install msgspec"):
        declare(kind)


@pytest.mark.parametrize(
    "kind", [Model, list[Model], Holder, Page[Holder], Annotated[Model, 1]], ids=str
)
def test_pydantic_handles_what_has_a_model(without, kind):
    """However deep within the type it is; msgspec is not needed for it."""
    without("msgspec")
    assert declare(kind).rich.dumps
    without("pydantic")
    with pytest.raises(
        ConfigurationError, match="needs the extra `pydantic`: pip install pydantic"
    ):
        declare(kind)


@pytest.mark.parametrize(
    ("kind", "named"),
    [(list[PurePosixPath], "PurePosixPath"), (WithPath, "Mixed"), (Mixed, "Mixed")],
)
def test_pydantic_handles_what_msgspec_does_not(without, kind, named):
    """Without it the error tells what msgspec says, and which extra may help."""
    assert declare(kind).rich.dumps
    without("pydantic")
    with pytest.raises(ConfigurationError, match=rf"msgspec.*{named}.*; .*pip install pydantic"):
        declare(kind)


def test_an_old_pydantic_is_refused(monkeypatch):
    """The error tells which versions will do."""
    monkeypatch.setattr(pydantic, "VERSION", "2.10.6")
    with pytest.raises(ConfigurationError, match=r"needs Pydantic 2\.11 or newer, not 2\.10\.6"):
        declare(Model)


def test_a_type_whose_annotations_do_not_resolve_is_refused():
    """The library that handles it says which name is missing."""

    class Broken(pydantic.BaseModel):
        """A model of a type that does not exist."""

        x: Missing  # noqa: F821 - that is the point

    with pytest.raises(ConfigurationError, match="not defined"):
        declare(Broken)
    with pytest.raises(ConfigurationError, match="Missing"):
        declare(type("Row", (), {"__annotations__": {"x": "Missing"}, "__attrs_attrs__": ()}))


def typed(_x: Missing) -> list[Point]:  # noqa: F821 - only the result counts
    """Declare a type beside a parameter whose annotation does not resolve."""


async def awaited() -> Point | None:
    """Declare what is returned when awaited."""


def unresolved() -> Missing:  # noqa: F821 - that is the point
    """Declare a type that does not exist."""


def test_a_function_declares_its_result():
    """So does a wrapper of it."""
    assert declared_by(typed) == list[Point]
    assert declared_by(awaited) == Point | None

    @functools.wraps(typed)
    def wrapper(*args):
        return typed(*args)

    assert declared_by(wrapper) == list[Point]


@pytest.mark.parametrize("function", [lambda: 1, functools.partial(typed, 1), len])
def test_a_function_without_an_annotation_is_refused(function):
    """The error tells both ways out."""
    with pytest.raises(ConfigurationError, match=r"add one, or write returns="):
        declared_by(function)


def test_an_annotation_that_does_not_resolve_is_refused():
    """The error tells the annotation, and the name that is missing."""
    with pytest.raises(ConfigurationError, match=r"'Missing' cannot be resolved .*write returns="):
        declared_by(unresolved)


@pytest.mark.parametrize(
    ("kind", "stored", "words"),
    [
        (Point, {"x": "hunter2"}, "Expected `int`, got `str` - at `$.x`"),
        (Point, {}, "Object missing required field `x`"),
        (Colour, "hunter2", "ValidationError"),
        (dict[str, Point], {"hunter2": 1}, "Expected `object`, got `int` - at `$[...]`"),
        (Model, {"identity": "hunter2"}, "uuid_parsing and 1 more"),
        (list[Holder], [{}], "missing 'inner'"),
    ],
)
def test_a_fault_is_explained_without_values(kind, stored, words):
    """Log lines and observers get the words."""
    declared = declare(kind)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of either library
        declared.rich.load(stored)
    assert declared.explain(raised.value) == words


@pytest.mark.parametrize("kind", [Point, Model])
def test_other_faults_are_explained_by_their_type(kind):
    """A validator may raise anything, and its text may quote a value."""
    assert declare(kind).explain(RuntimeError("hunter2")) == "RuntimeError"
