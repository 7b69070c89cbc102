"""The warning that an AsyncClient was dropped and not closed."""

from __future__ import annotations

import sys
import warnings


def warn_dropped() -> None:
    """Issue a `ResourceWarning`, unless the interpreter ends: then the client was there to the end."""
    if sys.is_finalizing():
        return
    warnings.warn(
        "an AsyncClient was dropped without aclose(); make one for the whole program, and close it",
        ResourceWarning,
        stacklevel=1,
    )
