"""A tutorial plugin for shardcache."""
