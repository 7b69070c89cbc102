"""A name with options, as one text: `ketama:profile=twemproxy,hash=md5`."""

from __future__ import annotations

from shardcache.errors import ConfigurationError


def parse_choice(text: str) -> tuple[str, dict[str, str]]:
    """Return the name and the options of a choice of strategy or codec.

    An option's value may hold `:` and `=`, but no `,`. Raise `ConfigurationError` for a text of
    another form, listing every fault.

    >>> parse_choice("ketama:profile=twemproxy,hash=md5")
    ('ketama', {'profile': 'twemproxy', 'hash': 'md5'})
    """
    name, colon, rest = text.partition(":")
    options: dict[str, str] = {}
    faults = [] if name.strip() else ["must begin with a name"]
    for place, written in enumerate(rest.split(",") if colon else (), 1):
        option, equals, value = written.partition("=")
        if not (equals and option.isidentifier()):
            # Not quoted: of a URL given by mistake, any part may be the password.
            faults.append(f"option {place} is not written name=value")
        elif option == "secret":
            faults.append("a secret is no option, for options are shown: give it as `secret`")
        elif option in options:
            faults.append(f"option {option!r} is given more than once")
        else:
            options[option] = value
    if faults:
        raise ConfigurationError(*faults)
    return name, options
