"""A node that was ejected is never asked again."""

from shardcache.core.health import Health

Health.restore = lambda *_: None
