"""Interrupts at each moment at which a signal may raise within a function."""

from __future__ import annotations

import dis
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from types import CodeType, FrameType
from typing import Any

# Behind these CPython looks for signals.
_CHECKING = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "JUMP_BACKWARD", "RESUME"}


class Interrupt(BaseException):
    """What a signal's handler raises."""


def interrupted(call: Callable[[], Any], inside: Callable[[CodeType], bool]) -> Iterator[Interrupt]:
    """Interrupt a call at each moment in turn, until it runs to its end.

    `inside` returns whether a function's code is to be interrupted. Yields each interrupt while its
    frames are alive.
    """
    moment = 0
    while (interrupt := _interrupt_of(call, inside, moment)) is not None:
        yield interrupt
        del interrupt
        moment += 1


def interrupted_before(number: int, act: Callable[[], Any], files: Container[str]) -> bool:
    """Act, with an interrupt before one bytecode of some files; return whether it came to that one."""
    left = number

    def trace(frame: FrameType, event: str, _: object) -> Any:  # the type of a trace function
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for it when tracing begins
    sys.settrace(trace)
    try:
        act()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return left <= 0


def _interrupt_of(
    call: Callable[[], Any], inside: Callable[[CodeType], bool], moment: int
) -> Interrupt | None:
    passed = 0
    raised = False
    previous: dict[FrameType, str] = defaultdict(str)

    def trace(frame: FrameType, event: str, _: object) -> Any:  # the type of a trace function
        nonlocal passed, raised
        if raised or not inside(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        if event == "call":
            previous[frame] = "RESUME"
        if event == "exception":  # what raised has not looked for signals
            previous[frame] = ""
        if event == "return" and not _is_called_from_c(frame.f_code) and frame.f_back:
            previous[frame.f_back] = ""  # nor has the return from a function in Python
        if event == "opcode":
            checked = previous[frame] in _CHECKING
            previous[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            passed += checked
            if checked and passed > moment:
                raised = True
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # without one such frame Python 3.12 tells of no opcode
    sys.settrace(trace)
    try:
        call()
    except Interrupt as interrupt:
        return interrupt
    finally:
        sys.settrace(before)
        previous.clear()
    assert not raised, "the interrupt was swallowed"
    return None


def _is_called_from_c(code: CodeType) -> bool:
    """Return whether a call to it goes through C code, behind which CPython looks for signals."""
    suspends = code.co_flags & (inspect.CO_COROUTINE | inspect.CO_GENERATOR)
    return bool(suspends) or code.co_name.startswith("__")
