"""Functions that take secrets leave none in the frames of an error."""

from __future__ import annotations

import builtins
import inspect
import traceback

import pytest

from hostile.showing import all_shown
from shardcache import Client, Node
from shardcache.core import secrecy
from shardcache.core.secrecy import clear_frames, takes_secrets

SECRET = "hunter2" + "secret"


def ours(function):
    """Return a function as if this package had it."""
    code = function.__code__
    return type(function)(code, vars(secrecy), function.__name__, None, function.__closure__)


def test_arguments_and_variables_are_dropped():
    """No frame of the package holds an argument, or what was computed from it."""

    def fail(url):
        parts = [url, url.upper()]  # noqa: F841 - a variable of the frame
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        takes_secrets(ours(fail))(SECRET)
    assert SECRET not in all_shown(caught.value)
    assert SECRET.upper() not in all_shown(caught.value)


@pytest.mark.parametrize(
    ("module", "cleared"), [("shardcache_flask.cache", True), ("shardcaches", False)]
)
def test_plugins_are_cleared_and_strangers_are_not(module, cleared):
    """A plugin is named after the package; another package's variables are its own."""

    def fail(url):
        raise ValueError(len(url))

    failing = type(fail)(fail.__code__, {"__builtins__": builtins, "__name__": module})
    with pytest.raises(ValueError, match="13") as caught:
        takes_secrets(failing)(SECRET)
    (*_, (frame, _)) = traceback.walk_tb(caught.value.__traceback__)
    assert frame.f_locals == ({} if cleared else {"url": SECRET})


def test_the_whole_chain_is_cleared():
    """The causes of an error too, and the errors of a group."""

    def fail(url):
        raise KeyError(len(url))

    failing = ours(fail)

    def fail_again(url):
        try:
            failing(url)
        except KeyError as error:
            raise ValueError("no") from error

    try:
        ours(fail_again)(SECRET)
    except ValueError as error:
        group = ExceptionGroup("many", [error])
    clear_frames(group)
    assert SECRET not in all_shown(group)


def test_a_running_generator_is_left_alone():
    """An error that passed through it does not end it."""
    errors = []

    def fail():
        raise ValueError("no")

    def steps():
        try:
            fail()
        except ValueError as error:
            errors.append(error)
        yield 1
        yield 2

    running = ours(steps)()
    assert next(running) == 1
    clear_frames(errors[0])
    assert next(running) == 2


def test_frames_of_the_program_keep_their_variables():
    """What a program of its own has in its frames is its own affair."""

    def fail(url):
        raise ValueError(f"no {len(url)}")

    with pytest.raises(ValueError, match="no") as caught:
        fail(SECRET)
    clear_frames(caught.value)
    frame = caught.value.__traceback__.tb_next.tb_frame
    assert frame.f_locals["url"] == SECRET


def test_decorated_functions_keep_their_signatures():
    """Signatures and pages are those of the functions themselves."""
    assert list(inspect.signature(Node).parameters) == ["url", "name", "weight"]
    assert "default_ttl" in inspect.signature(Client).parameters
    assert Client.from_url.__doc__.startswith("Create a client from one URL")
