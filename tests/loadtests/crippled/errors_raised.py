"""A node's error reaches the caller: `on_error="raise"`, where a miss was wanted."""

from dataclasses import replace

from run import Plan

_of = Plan.of.__func__


def _raising(cls, plain):
    plan = _of(cls, plain)
    return replace(plan, settings=replace(plan.settings, on_error="raise"))


Plan.of = classmethod(_raising)
