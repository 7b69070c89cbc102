"""A name with its options, as one text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.errors import ConfigurationError
from shardcache.settings import parse_options

NAMES = st.text(min_size=1).filter(lambda text: ":" not in text and text.strip())
OPTIONS = st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True).filter(lambda name: name != "secret")
VALUES = st.text().filter(lambda text: "," not in text)


@given(NAMES, st.dictionaries(OPTIONS, VALUES))
def test_choice_round_trips(name, options):
    """A name and options written as one text come back; values may hold `:` and `=`."""
    written = ",".join(f"{option}={value}" for option, value in options.items())
    assert parse_options(f"{name}:{written}" if options else name) == (name, options)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["must begin with a name"]),
        (":profile=x", ["must begin with a name"]),
        ("ketama:", ["option 1 is not written name=value"]),
        ("ketama:profile", ["option 1 is not written name=value"]),
        ("ketama:a=1,a=2", ["option 'a' is given more than once"]),
        ("pickle:secret=hunter2", ["a secret cannot be an option"]),
        ("redis://app:hunter2=@h", ["option 1 is not written name=value"]),
        (":x,y", ["must begin", "option 1 is", "option 2 is"]),
    ],
)
def test_other_forms_are_refused(text, faults):
    """Every fault of a choice is told, and none of a misplaced URL's text."""
    with pytest.raises(ConfigurationError) as caught:
        parse_options(text)
    assert len(caught.value.faults) == len(faults)
    for told, expected in zip(caught.value.faults, faults, strict=True):
        assert told.startswith(expected)
    assert "hunter2" not in str(caught.value)
