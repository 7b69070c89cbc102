"""From a URL, a file, the environment or a dict to frozen values, all faults told at once."""

from __future__ import annotations

from shardcache.settings.choices import parse_choice
from shardcache.settings.nodes import node_list, parse_node, parse_nodes
from shardcache.settings.sources import names_nodes
from shardcache.settings.value import Settings

__all__ = ["Settings", "names_nodes", "node_list", "parse_choice", "parse_node", "parse_nodes"]
