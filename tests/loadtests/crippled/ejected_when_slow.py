"""The client has no patience: a node that answers 20 ms late has not answered."""

from dataclasses import replace

from run import Plan

from shardcache import TimeoutPolicy

_of = Plan.of.__func__


def _impatient(cls, plain):
    plan = _of(cls, plain)
    return replace(plan, settings=replace(plan.settings, timeout=TimeoutPolicy(0.004)))


Plan.of = classmethod(_impatient)
