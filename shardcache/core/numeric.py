"""Numbers of any type as `int` or `float`, except `bool`.

`numpy.int64` is not an `int`, and `Decimal` is not a `float`, but callers mean the same by them.
"""

from __future__ import annotations

import math
from numbers import Number
from operator import index
from typing import SupportsFloat, SupportsIndex


def whole(value: object) -> int | None:
    """Return `value` as an `int` if it is of an integer type, otherwise `None`.

    >>> whole(7), whole(7.0), whole(True)
    (7, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return index(value)
    except TypeError:  # as for a numpy array of more than one element
        return None


def real(value: object) -> float | None:
    """Return `value` as a `float` if it is a number of any type, otherwise `None`.

    A number too large for a float becomes infinite.
    """
    if isinstance(value, (int, float)):
        number: SupportsFloat | None = None if isinstance(value, bool) else value
    elif isinstance(value, Number) and isinstance(value, SupportsFloat):  # Decimal is no Real
        number = value
    else:
        number = whole(value)
    if number is None:
        return None
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf  # type: ignore[operator] # as they all can
    except ValueError:  # a Decimal's signaling NaN
        return math.nan
