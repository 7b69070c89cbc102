"""A name with options, as one text: `ketama:profile=twemproxy,hash=md5`."""

from __future__ import annotations

from shardcache.errors import ConfigurationError


def parse_options(text: str) -> tuple[str, dict[str, str]]:
    """Return the name and the options of a strategy or codec.

    An option's value may hold `:` and `=`, but no `,`. Raise `ConfigurationError` listing every
    fault if the text has another form.

    >>> parse_options("ketama:profile=twemproxy,hash=md5")
    ('ketama', {'profile': 'twemproxy', 'hash': 'md5'})
    """
    name, colon, rest = text.partition(":")
    options: dict[str, str] = {}
    faults = [] if name.strip() else ["must begin with a name"]
    for place, written in enumerate(rest.split(",") if colon else (), 1):
        option, equals, value = written.partition("=")
        if not (equals and option.isidentifier()):
            # Not quoted: the text may be a URL, given by mistake, and any part its password.
            faults.append(f"option {place} is not written name=value")
        elif option == "secret":
            faults.append(
                "a secret cannot be an option, because options are shown: give it as `secret`"
            )
        elif option in options:
            faults.append(f"option {option!r} is given more than once")
        else:
            options[option] = value
    if faults:
        raise ConfigurationError(*faults)
    return name, options
