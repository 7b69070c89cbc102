"""Which client a command works with: `--url`, `--config`, or the environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec, TypeVar

import click

from shardcache.clients.sync import Client
from shardcache.errors import ConfigurationError
from shardcache.settings import Settings

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
        "--url", help="The nodes, as memcached://a,b,c?strategy=ketama (default: SHARDCACHE_URL)."
    )(command)


def open_client(url: str | None, config: str | None) -> Client:
    """Give the client that the options name, raising its nodes' errors."""
    if url is not None and config is not None:
        raise click.UsageError("give --url or --config, not both")
    return Client.from_settings(replace(_settings(url, config), on_error="raise"))


def _settings(url: str | None, config: str | None) -> Settings:
    if url is not None:
        return Settings.from_url(url)
    if config is not None:
        return Settings.load(config)
    settings = Settings.from_env(os.environ)
    if settings.embedded:
        raise ConfigurationError("no nodes named: give --url, --config or SHARDCACHE_URL")
    return settings
