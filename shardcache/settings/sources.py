"""Where settings come from: a dict, a file, a URL, the environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError
from shardcache.settings.faults import Faults, near, unknown, within
from shardcache.settings.follow import TABLE, Follow, read_follow
from shardcache.settings.nodes import read_url
from shardcache.settings.parameters import FROM_ENVIRONMENT, PARAMETERS, true_or_false

if TYPE_CHECKING:
    from pathlib import Path

    from shardcache.core.placement.nodes import Node

PREFIX: Final = "SHARDCACHE_"
URL_VARIABLE: Final = "SHARDCACHE_URL"
CONFIG_VARIABLE: Final = "SHARDCACHE_CONFIG"
DISABLED_VARIABLE: Final = "SHARDCACHE_DISABLED"
FOLLOW_VARIABLE: Final = "SHARDCACHE_FOLLOW"

# `SHARDCACHE_PLUGINS` is read where plugins are loaded; it is listed so that it is not a misspelling.
_OTHER_VARIABLES: Final = (
    URL_VARIABLE,
    CONFIG_VARIABLE,
    DISABLED_VARIABLE,
    FOLLOW_VARIABLE,
    "SHARDCACHE_PLUGINS",
)

NO_NODES: Final = (
    "no nodes are named: set SHARDCACHE_URL, as memcached://10.0.0.1,10.0.0.2, or SHARDCACHE_CONFIG to"
    " a file of settings; to use the memory of each process, set SHARDCACHE_URL=memory://a,b,c"
)


NO_FILE: Final = "no file of settings names the nodes: set SHARDCACHE_CONFIG, or pass the path"
URL_OVERRIDES: Final = (
    "SHARDCACHE_URL names the nodes, and no change of a file would reach them: unset it, and name them in"
    " the file of SHARDCACHE_CONFIG"
)


class Setting(NamedTuple):
    """A value with the place it came from, in words for the operator."""

    origin: str
    value: object


Collected: TypeAlias = dict[str, Setting]


def from_table(
    table: Mapping[str, object], source: str, faults: Faults, *, complete: bool = True
) -> Collected:
    """Return the settings of a dict or of a file's table; `complete` is whether it must name nodes."""
    collected: Collected = {}
    for name, value in table.items():
        if name in PARAMETERS:
            collected[name] = Setting(within(source, name), value)
        else:
            faults.add(within(source, _key(name)), unknown(name, PARAMETERS))
    if complete and "nodes" not in table:
        faults.add(within(source, "nodes"), ConfigurationError("is missing (a list of URLs)"))
    return collected


def _key(name: object) -> str:
    return name if isinstance(name, str) and name.isidentifier() else redact(name)


def from_file(path: str | PathLike[str], faults: Faults, *, complete: bool = True) -> Collected:
    """Return the settings of a TOML file, or of `[tool.shardcache]` in a `pyproject.toml`.

    Its table `[follow]` is checked, and left out: see `follow_of`.
    """
    try:
        table = _read(path)
    except ConfigurationError as error:
        faults.add(str(path), error)
        return {}
    with faults.of(within(str(path), TABLE)):
        read_follow(table.pop(TABLE, {}))
    return from_table(table, str(path), faults, complete=complete)


def follow_of(path: str | PathLike[str]) -> Follow:
    """Return how a client that follows a file changes its nodes; raise as `from_file` does."""
    return read_follow(_read(path).get(TABLE, {}))


def _read(path: str | PathLike[str]) -> dict[str, object]:
    from pathlib import Path  # noqa: PLC0415 - few programs have a file

    return _table(Path(path))


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
    # Raised here because those errors, and the frames of their traceback, hold the file's contents.
    raise ConfigurationError(fault)


def from_url(url: str, source: str, faults: Faults) -> Collected:
    """Return the settings in a URL: its hosts as `nodes`, and those of its query."""
    nodes, texts = read_url(url, source, faults)
    collected = {
        name: Setting(within(source, f"?{name}="), PARAMETERS[name].from_text(text))
        for name, text in texts.items()
    }
    if nodes:
        collected["nodes"] = Setting(source, nodes)
    return collected


def from_urls(urls: Sequence[str], source: str, faults: Faults) -> Collected:
    """Return the settings of several URLs, with the nodes of all.

    A setting of the client may stand in any of them, and in two only if both have the same value.
    """
    if len(urls) == 1:
        return from_url(urls[0], source, faults)
    collected: Collected = {}
    nodes: list[object] = []
    for place, url in enumerate(urls, 1):
        for name, setting in from_url(url, within(source, f"URL {place}"), faults).items():
            if name == "nodes":
                nodes += cast("tuple[Node, ...]", setting.value)
            elif collected.setdefault(name, setting).value != setting.value:
                faults.add(
                    setting.origin, ConfigurationError(f"differs from {collected[name].origin}")
                )
    if nodes:
        collected["nodes"] = Setting(source, nodes)
    return collected


def names_nodes(environ: Mapping[str, str]) -> bool:
    """Return whether the environment names a URL or a file of settings."""
    variables = _variables(environ)
    return URL_VARIABLE in variables or CONFIG_VARIABLE in variables


def names_file(environ: Mapping[str, str]) -> bool:
    """Return whether the environment names a file of settings."""
    return CONFIG_VARIABLE in _variables(environ)


def file_of_nodes(environ: Mapping[str, str]) -> str:
    """Return the file of settings that names the nodes; raise `ConfigurationError` if none does."""
    variables = _variables(environ)
    if URL_VARIABLE in variables:
        raise ConfigurationError(URL_OVERRIDES)
    if CONFIG_VARIABLE not in variables:
        raise ConfigurationError(NO_FILE)
    return variables[CONFIG_VARIABLE]


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Return whether `SHARDCACHE_DISABLED` turns the cache off.

    It is no setting: it holds for every client of the process, wherever its settings come from.
    """
    return _flag_of(environ, DISABLED_VARIABLE)


def follows(environ: Mapping[str, str]) -> bool:
    """Return whether `SHARDCACHE_FOLLOW` has clients of the environment follow its file."""
    return _flag_of(environ, FOLLOW_VARIABLE)


def _flag_of(environ: Mapping[str, str], variable: str) -> bool:
    flag = true_or_false(_variables(environ).get(variable, "no"))
    if not isinstance(flag, bool):
        raise ConfigurationError(f"{variable}: must be yes, true, 1, no, false or 0")
    return flag


def from_environment(
    environ: Mapping[str, str], faults: Faults, default: str | None = None
) -> Collected:
    """Return the settings of the environment; if it names neither URL nor file, those of `default`.

    `SHARDCACHE_URL` overrides the file of `SHARDCACHE_CONFIG`, and the variable of a single setting
    overrides both. An empty variable counts as unset.
    """
    variables = _variables(environ)
    url, config = variables.get(URL_VARIABLE), variables.get(CONFIG_VARIABLE)
    collected = {} if config is None else from_file(config, faults, complete=url is None)
    if url is not None:
        collected |= from_urls(url.split(), URL_VARIABLE, faults)
    elif config is None and default is not None:
        collected |= from_url(default, "default", faults)
    elif config is None:
        faults.add("", ConfigurationError(NO_NODES))
    for name in FROM_ENVIRONMENT:
        variable = variable_of(name)
        if variable in variables:
            collected[name] = Setting(variable, PARAMETERS[name].from_text(variables[variable]))
    _note_misspelt(variables, faults)
    return collected


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that begin with `SHARDCACHE_`, without blanks around their values."""
    return {
        name: value.strip()
        for name, value in environ.items()
        if name.startswith(PREFIX) and value.strip()
    }


def _note_misspelt(variables: Iterable[str], faults: Faults) -> None:
    """Add a fault for each variable that is probably a misspelt setting.

    Other variables are ignored: a plugin may have its own, and Kubernetes sets `SHARDCACHE_PORT` and
    more for a service called shardcache.
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
