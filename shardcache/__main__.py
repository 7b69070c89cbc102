"""`python -m shardcache`."""

from __future__ import annotations

from shardcache.cli import main

main()
