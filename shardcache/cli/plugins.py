"""`plugins`: which plugins are loaded, and what they offer."""

from __future__ import annotations

import click

from shardcache.cli.output import Sheet, json_option, print_json, show
from shardcache.cli.terminal import escaped, say
from shardcache.plugin.manager import load


@click.command()
@json_option
def plugins(*, as_json: bool) -> None:
    """List the loaded plugins and what they offer."""
    loaded = load()
    if as_json:
        print_json(
            {
                "plugins": [plugin._asdict() for plugin in loaded.infos],
                "blocked": sorted(loaded.blocked),
            }
        )
        return
    rows = Sheet("plugin", "distribution", "offers", "names", wraps="names")
    for plugin in loaded.infos:
        kinds: dict[str, list[str]] = {}
        for offer in plugin.offers:
            kind, _, name = offer.partition(" ")
            kinds.setdefault(kind, []).append(name)
        offered = {kind: ", ".join(names) for kind, names in kinds.items()} or {"": ""}
        for row, (kind, names) in enumerate(offered.items()):
            of = ("", "") if row else (plugin.name, plugin.distribution)
            rows.add(*of, kind, names)
    show(rows)
    if loaded.blocked:
        say(f"\ninstalled, not loaded: {', '.join(map(escaped, sorted(loaded.blocked)))}")
