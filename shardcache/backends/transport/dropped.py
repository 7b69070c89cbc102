"""The warning about an AsyncClient that was dropped without being closed."""

from __future__ import annotations

import sys
import warnings


def warn_dropped() -> None:
    """Issue a `ResourceWarning`, except at exit: a client may live as long as the program."""
    if sys.is_finalizing():
        return
    warnings.warn(
        "an AsyncClient was dropped without aclose(); create one for the whole program, and close it",
        ResourceWarning,
        stacklevel=1,
    )
