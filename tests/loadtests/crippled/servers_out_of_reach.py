"""The servers are where this process cannot reach them."""

from dataclasses import replace

from run import Plan

from shardcache import Node

_of = Plan.of.__func__


def _elsewhere(cls, plain):
    plan = _of(cls, plain)
    return replace(plan, settings=replace(plan.settings, nodes=(Node("memcached://127.0.0.1:1"),)))


Plan.of = classmethod(_elsewhere)
