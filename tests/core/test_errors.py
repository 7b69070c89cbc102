"""Errors travel: between processes, and as copies."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from shardcache import Client, NodeCheck, errors
from shardcache.errors import (
    CheckFailedError,
    ConfigurationError,
    DecodeError,
    LockUnavailable,
    NodeError,
    NodeTimeoutError,
    NodeUnavailableError,
    PartialFailureError,
    ShardCacheError,
    UnknownPluginError,
)

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ShardCacheError)
]
# Beside each class's `kind("message")`: what its other arguments are.
SPECIAL: dict[type[ShardCacheError], list[Callable[[], ShardCacheError]]] = {
    ConfigurationError: [lambda: ConfigurationError("one", "two")],
    UnknownPluginError: [lambda: UnknownPluginError("strategy", "kettle", ["ketama", "jump"])],
    PartialFailureError: [
        lambda: PartialFailureError(
            {"a": NodeTimeoutError("too late", "n1"), b"b": DecodeError("not JSON")},
            total=4,
            nodes=2,
            found={"c": [1]},
            succeeded=["d"],
        ),
        lambda: PartialFailureError({}, total=0, nodes=0),
    ],
    CheckFailedError: [
        lambda: CheckFailedError(
            {"n1": ["no password", "too old"]}, {"n2": NodeCheck("Redis 7.0.15", 0.001, ("full",))}
        ),
    ],
    LockUnavailable: [
        lambda: LockUnavailable("1 of 3", {"n1": NodeUnavailableError("refused", "n1")})
    ],
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda error, protocol=protocol: pickle.loads(
            pickle.dumps(error, protocol)
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


def examples(kind: type[ShardCacheError]) -> list[ShardCacheError]:
    """Return errors of this class: of its message alone, of a node, and with what is its own."""
    made = [make() for make in SPECIAL.get(kind, [])]
    if kind not in (UnknownPluginError, PartialFailureError, CheckFailedError):
        made.append(kind("something broke"))
    if issubclass(kind, NodeError):
        made.append(kind("something broke", "n1"))
    for error in made:
        error.add_note("seen in a test")
    return made


def told(thing: Any) -> Any:  # whatever an attribute holds
    """Return all that can be seen of an error, and of the errors it holds, to be compared."""
    if isinstance(thing, BaseException):
        attributes = {name: told(value) for name, value in vars(thing).items()}
        special = [getattr(thing, name, None) for name in ("errno", "strerror", "filename")]
        return type(thing), thing.args, str(thing), repr(thing), attributes, special
    if isinstance(thing, dict):
        return {key: told(value) for key, value in thing.items()}
    return thing


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("kind", CLASSES)
def test_a_copy_equals_its_error(
    kind: type[ShardCacheError], way: Callable[[ShardCacheError], ShardCacheError]
) -> None:
    """An error of any class survives pickling and copying with all it says."""
    for error in examples(kind):
        assert told(way(error)) == told(error)


class HomemadeError(PartialFailureError):
    """A class of a user's own, with arguments that are not its message."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__({}, total=0, nodes=0)
        self.both = first + second


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_subclass_with_its_own_arguments_is_copied(way: Callable[[Exception], Exception]) -> None:
    """A user's subclass needs nothing more."""
    error = HomemadeError("a", "b")
    assert told(way(error)) == told(error)


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        (
            {"a": NodeTimeoutError("too late", "n1"), "b": NodeTimeoutError("closed", "n1")},
            "2 of 300 keys failed on 1 of 3 nodes (n1: too late)",
        ),
        (
            {"a": DecodeError("odd")},
            "1 of 300 keys failed, because the stored value cannot be read",
        ),
        (
            {"a": DecodeError("odd"), "b": NodeUnavailableError("refused", "n2")},
            "2 of 300 keys failed on 1 of 3 nodes (n2: refused), 1 of them because the stored value cannot be read",
        ),
    ],
)
def test_a_partial_failure_has_the_number_of_keys(failed: dict[str, Any], told: str) -> None:
    """Two of two keys and two of three hundred are not the same trouble."""
    assert str(PartialFailureError(failed, total=300, nodes=3)) == told


def test_a_partial_failure_of_many_nodes_is_one_line() -> None:
    """The first few nodes have their reasons."""
    failed = {f"k{n}": NodeUnavailableError("refused", f"n{n}") for n in range(8)}
    message = str(PartialFailureError(failed, total=9, nodes=9))
    assert message.startswith("8 of 9 keys failed on 8 of 9 nodes (n0: refused; n1: refused;")
    assert message.endswith("; n4: refused; and 3 more)")


def test_a_servers_text_forges_no_log_line() -> None:
    """The message of a node's error is one printable line, whatever it quotes."""
    error = NodeUnavailableError("the server says: \x1b[2J\nERROR forged \u202e", "n1")
    assert str(error) == r"n1: the server says: \x1b[2J\nERROR forged \u202e"
    assert str(PartialFailureError({"k": error}, total=1, nodes=1)).isprintable()


def test_an_error_comes_back_from_a_process_pool() -> None:
    """It reaches the program, and the pool goes on."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(UnknownPluginError) as caught:
            pool.submit(Client, "memory://a", strategy="kettle").result(timeout=60)
        assert "ketama" in caught.value.known
        assert pool.submit(len, "abc").result(timeout=60) == 3
