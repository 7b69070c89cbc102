"""`python -m shardcache.cli`."""

from __future__ import annotations

from shardcache.cli import main

main()
