"""Settings from a URL, a file, the environment or a dict, checked; all faults in one error."""

from __future__ import annotations

from shardcache.settings.gutter import Failover, Gutter
from shardcache.settings.nodes import node_list, parse_node, parse_nodes
from shardcache.settings.options import parse_options
from shardcache.settings.parameters import REDLOCK
from shardcache.settings.settings import Settings
from shardcache.settings.shadow import Shadow
from shardcache.settings.sources import (
    DISABLED_VARIABLE,
    follows,
    is_disabled,
    names_file,
    names_nodes,
)

__all__ = [
    "DISABLED_VARIABLE",
    "REDLOCK",
    "Failover",
    "Gutter",
    "Settings",
    "Shadow",
    "follows",
    "is_disabled",
    "names_file",
    "names_nodes",
    "node_list",
    "parse_node",
    "parse_nodes",
    "parse_options",
]
