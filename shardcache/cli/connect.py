"""The client of a command: from `--url`, `--config` or the environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ParamSpec, TypeVar

import click

from shardcache.clients.blocking import Client
from shardcache.errors import ConfigurationError
from shardcache.settings import Settings, names_nodes
from shardcache.settings.adapters import checked
from shardcache.settings.config_file import ConfigFile

P = ParamSpec("P")
R = TypeVar("R")


def client_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--url` and `--config`."""
    command = click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False),
        help="A TOML file of settings.",
    )(command)
    return click.option(
        "--url",
        "urls",
        multiple=True,
        help="The nodes, as memcached://a,b,c?strategy=ketama (default: SHARDCACHE_URL). For several"
        " URLs repeat the option, or put spaces between them.",
    )(command)


def open_client(urls: Sequence[str], config: str | None, *, locks: str | None = None) -> Client:
    """Return the client that the options name; it raises the errors of its nodes.

    `locks` replaces the setting of that name.
    """
    if urls and config is not None:
        raise click.UsageError("give --url or --config, not both")
    settings = replace(_settings(urls, config), on_error="raise")
    if locks is not None:
        settings = replace(settings, locks=checked("locks", locks), lock_nodes=None)
    return Client.from_settings(settings)


def config_file(urls: Sequence[str], config: str | None) -> ConfigFile | None:
    """Return the file that names the nodes of `open_client`; `None` if URLs do."""
    if urls:
        return None
    if config is not None:
        return ConfigFile(config)
    with contextlib.suppress(ConfigurationError):  # `SHARDCACHE_URL` overrides a file
        return ConfigFile.of_environment(os.environ)
    return None


def each_url(urls: Sequence[str]) -> list[str]:
    """Return the URLs of an option that was repeated, or that has spaces between its URLs."""
    return [url for written in urls for url in written.split() or [written]]


def _settings(urls: Sequence[str], config: str | None) -> Settings:
    if urls:
        return Settings.from_urls(each_url(urls))
    if config is not None:
        return Settings.load(config)
    if not names_nodes(os.environ):
        raise ConfigurationError("no nodes configured: give --url, --config or SHARDCACHE_URL")
    return Settings.from_env(os.environ)
