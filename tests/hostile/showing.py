"""All that a log or an error reporter can show of an error."""

from __future__ import annotations

import traceback
from pathlib import Path

TESTS = Path(__file__).parents[1]


def all_shown(error):
    """Return the texts, arguments, attributes and traces of an error and its whole chain.

    Local variables are shown as well, but for those of the tests, which hold the secret themselves.
    """
    shown = ["".join(traceback.format_exception(error))]
    for link in chain_of(error):
        shown += [repr(link), str(link), repr(link.args), repr(vars(link))]
        shown += getattr(link, "__notes__", [])
        shown += locals_of(link)
    return "\n".join(shown)


def locals_of(error):
    """Return the local variables of an error's frames, as reporters collect them."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return [
        f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.locals}"
        for frame in told.stack
        if TESTS not in Path(frame.filename).parents
    ]


def chain_of(error):
    """Return an error, with its causes, contexts and the errors that it holds, each once."""
    found, pending = [], [error]
    while pending:
        link = pending.pop()
        if isinstance(link, BaseException) and link not in found:
            found.append(link)
            pending += [link.__cause__, link.__context__]
            pending += [
                *getattr(link, "failed", {}).values(),
                *getattr(link, "errors", {}).values(),
            ]
            pending += getattr(link, "exceptions", ())
    return found
