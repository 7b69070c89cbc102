"""Interrupts at each moment at which a signal may raise within a function."""

from __future__ import annotations

import dis
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

# Behind these CPython looks for signals.
_CHECKING = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "JUMP_BACKWARD", "RESUME"}


class Interrupt(BaseException):
    """What a signal's handler raises."""


def interrupted(call: Callable[[], Any], inside: Callable[[CodeType], bool]) -> Iterator[int]:
    """Call again and again, each time interrupted one moment later; stop when it comes to its end.

    `inside` says in whose code it is interrupted. Yields the number of the moment.
    """
    moment = 0
    while _is_interrupted(call, inside, moment):
        yield moment
        moment += 1


def _is_interrupted(
    call: Callable[[], Any], inside: Callable[[CodeType], bool], moment: int
) -> bool:
    passed = 0
    raised = False
    previous: dict[FrameType, str] = defaultdict(str)

    def trace(frame: FrameType, event: str, _: object) -> Any:  # the type of a trace function
        nonlocal passed, raised
        if raised or not inside(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            checked = previous[frame] in _CHECKING
            previous[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            passed += checked
            if checked and passed > moment:
                raised = True
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        pass
    finally:
        sys.settrace(before)
        previous.clear()
    return raised
