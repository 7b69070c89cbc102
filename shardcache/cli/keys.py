"""`get`, `set` and `delete`: read and change single values."""

from __future__ import annotations

import json
import sys

import click

from shardcache.cli.connect import client_options, open_client
from shardcache.cli.output import exits_by, json_option, print_json
from shardcache.cli.terminal import escaped, say


@click.command()
@click.argument("key")
@click.option("--raw", is_flag=True, help="Write text or bytes as they are, to a file or pipe.")
@client_options
@json_option
@exits_by
def get(key: str, urls: tuple[str, ...], config: str | None, *, raw: bool, as_json: bool) -> bool:
    """Print the value of KEY.

    Line breaks and other control characters are shown as escapes, so that no value controls the
    terminal. Exit with 1 when there is no value.
    """
    if raw and (as_json or sys.stdout.isatty()):
        raise click.UsageError("--raw writes to a file or pipe, without --json")
    missing = object()
    with open_client(urls, config) as client:
        value = client.get(key, missing)
    found = value is not missing
    if as_json:
        print_json({"key": key, "found": found, "value": value if found else None})
    elif not found:
        say(f"{escaped(key)}: not found", err=True)
    elif raw:
        sys.stdout.buffer.write(_bytes(value))
    else:
        say(escaped(value if isinstance(value, str) else repr(value)))
    return found


@click.command("set")
@click.argument("key")
@click.argument("value")
@click.option("--ttl", type=float, help="Seconds to live (default: the client's default_ttl).")
@click.option("--parse", is_flag=True, help="Read VALUE as JSON instead of text.")
@client_options
@json_option
@exits_by
def set_(  # noqa: PLR0913 - each is an option
    key: str,
    value: str,
    ttl: float | None,
    urls: tuple[str, ...],
    config: str | None,
    *,
    parse: bool,
    as_json: bool,
) -> bool:
    """Store the text VALUE under KEY.

    Exit with 1 when it could not be stored.
    """
    content = _parse_json(value) if parse else value
    with open_client(urls, config) as client:
        try:
            stored = client.set(key, content) if ttl is None else client.set(key, content, ttl=ttl)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--ttl") from None
        node = client.node_for(key)
    is_stored = stored and (ttl is None or ttl > 0)
    if as_json:
        print_json({"key": key, "stored": is_stored, "node": node.name})
    elif stored and not is_stored:
        say(f"{escaped(key)}: deleted from {escaped(node)}: ttl is zero or less")
    else:
        result = "stored on" if stored else "not stored on"
        say(f"{escaped(key)}: {result} {escaped(node)}")
    return stored


@click.command()
@click.argument("keys", nargs=-1, required=True)
@client_options
@json_option
@exits_by
def delete(
    keys: tuple[str, ...], urls: tuple[str, ...], config: str | None, *, as_json: bool
) -> bool:
    """Delete each of KEYS.

    Exit with 1 when none existed.
    """
    with open_client(urls, config) as client:
        removed = client.delete_many(keys)
    if as_json:
        print_json({"keys": list(keys), "removed": removed})
    else:
        say(f"{removed} of {len(keys)} deleted")
    return removed > 0


def _bytes(value: object) -> bytes:
    """Return bytes and text as they are, other values as Python prints them."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else repr(value)).encode(errors="surrogatepass")


def _parse_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="VALUE") from None
