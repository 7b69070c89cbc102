"""A node that does not answer is asked again and again."""

from shardcache.core.health import Health

Health.failed = lambda *_: False
