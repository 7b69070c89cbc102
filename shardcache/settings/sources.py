"""Where settings come from: a dict, a file, a URL, the environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError
from shardcache.settings.faults import Faults, near, unknown, within
from shardcache.settings.nodes import read_url
from shardcache.settings.parameters import FROM_ENVIRONMENT, PARAMETERS

if TYPE_CHECKING:
    from pathlib import Path

    from shardcache.core.nodes import Node

PREFIX: Final = "SHARDCACHE_"
URL_VARIABLE: Final = "SHARDCACHE_URL"
CONFIG_VARIABLE: Final = "SHARDCACHE_CONFIG"

# `SHARDCACHE_PLUGINS` is read where plugins are loaded; here it is only known to be no mistake.
_OTHER_VARIABLES: Final = (URL_VARIABLE, CONFIG_VARIABLE, "SHARDCACHE_PLUGINS")

NO_NODES: Final = (
    "no nodes are named: set SHARDCACHE_URL, as memcached://10.0.0.1,10.0.0.2, or SHARDCACHE_CONFIG to"
    " a file of settings; where the memory of each process is meant, SHARDCACHE_URL=memory://a,b,c"
)


class Setting(NamedTuple):
    """A value that was given, and where, in words for the operator."""

    origin: str
    value: object


Given: TypeAlias = dict[str, Setting]


def from_table(
    table: Mapping[str, object], source: str, faults: Faults, *, complete: bool = True
) -> Given:
    """Return the settings of a dict or of a file's table; `complete` if it has to name nodes."""
    given: Given = {}
    for name, value in table.items():
        if name in PARAMETERS:
            given[name] = Setting(within(source, name), value)
        else:
            faults.add(within(source, _key(name)), unknown(name, PARAMETERS))
    if complete and "nodes" not in table:
        faults.add(within(source, "nodes"), ConfigurationError("is missing (a list of URLs)"))
    return given


def _key(name: object) -> str:
    return name if isinstance(name, str) and name.isidentifier() else redact(name)


def from_file(path: str | PathLike[str], faults: Faults, *, complete: bool = True) -> Given:
    """Return the settings of a TOML file: its whole, or `[tool.shardcache]` of a `pyproject.toml`."""
    from pathlib import Path  # noqa: PLC0415 - few programs have a file

    try:
        table = _table(Path(path))
    except ConfigurationError as error:
        faults.add(str(path), error)
        return {}
    return from_table(table, str(path), faults, complete=complete)


def _table(path: Path) -> dict[str, object]:
    document: dict[str, object] = _toml(path)
    if path.name != "pyproject.toml":
        return document
    tool = document.get("tool")
    table = tool.get("shardcache") if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        raise ConfigurationError("has no table [tool.shardcache]")
    return table


def _toml(path: Path) -> dict[str, object]:
    import tomllib  # noqa: PLC0415 - as above

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        fault = "is not UTF-8"
    except ValueError as error:
        fault = f"is not TOML: {error}"
    except RecursionError:
        fault = "is nested too deeply"
    # Raised out here: those errors, and the frames of their traceback, hold what is in the file.
    raise ConfigurationError(fault)


def from_url(url: str, source: str, faults: Faults) -> Given:
    """Return the settings of a URL of one or several hosts."""
    nodes, texts = read_url(url, source, faults)
    given = {
        name: Setting(within(source, f"?{name}="), PARAMETERS[name].from_text(text))
        for name, text in texts.items()
    }
    if nodes:
        given["nodes"] = Setting(source, nodes)
    return given


def from_urls(urls: Sequence[str], source: str, faults: Faults) -> Given:
    """Return the settings of several URLs, whose nodes follow each other.

    A setting of the client may stand in any of them, and in two only if both say the same.
    """
    if len(urls) == 1:
        return from_url(urls[0], source, faults)
    given: Given = {}
    nodes: list[object] = []
    for place, url in enumerate(urls, 1):
        for name, setting in from_url(url, within(source, f"URL {place}"), faults).items():
            if name == "nodes":
                nodes += cast("tuple[Node, ...]", setting.value)
            elif given.setdefault(name, setting).value != setting.value:
                faults.add(setting.origin, ConfigurationError(f"differs from {given[name].origin}"))
    if nodes:
        given["nodes"] = Setting(source, nodes)
    return given


def names_nodes(environ: Mapping[str, str]) -> bool:
    """Return whether the environment names a URL or a file of settings."""
    variables = _variables(environ)
    return URL_VARIABLE in variables or CONFIG_VARIABLE in variables


def from_environment(
    environ: Mapping[str, str], faults: Faults, default: str | None = None
) -> Given:
    """Return the settings of the environment; when it names neither URL nor file, those of `default`.

    The file of `SHARDCACHE_CONFIG` counts least, then `SHARDCACHE_URL`, then the variable of one
    setting. An empty variable is as one not set.
    """
    variables = _variables(environ)
    url, config = variables.get(URL_VARIABLE), variables.get(CONFIG_VARIABLE)
    given = {} if config is None else from_file(config, faults, complete=url is None)
    if url is not None:
        given |= from_urls(url.split(), URL_VARIABLE, faults)
    elif config is None and default is not None:
        given |= from_url(default, "default", faults)
    elif config is None:
        faults.add("", ConfigurationError(NO_NODES))
    for name in FROM_ENVIRONMENT:
        variable = variable_of(name)
        if variable in variables:
            given[name] = Setting(variable, PARAMETERS[name].from_text(variables[variable]))
    _note_misspelt(variables, faults)
    return given


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that begin as ours do, without blanks around their values."""
    return {
        name: value.strip()
        for name, value in environ.items()
        if name.startswith(PREFIX) and value.strip()
    }


def _note_misspelt(variables: Iterable[str], faults: Faults) -> None:
    """Note the variables that are nearly ours.

    Others are let be: a plugin may have its own, and Kubernetes sets `SHARDCACHE_PORT` and more
    beside a service called shardcache.
    """
    known = (*_OTHER_VARIABLES, *map(variable_of, FROM_ENVIRONMENT))
    short = {variable.removeprefix(PREFIX): variable for variable in known}
    for variable in variables:
        meant = near(variable.removeprefix(PREFIX), short)
        if variable not in known and meant is not None:
            faults.add(variable, ConfigurationError(f"did you mean {short[meant]!r}?"))


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()
