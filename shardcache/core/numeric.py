"""What counts as a number: any type that says it is one, except for `bool`.

`numpy.int64` is no `int`, and `Decimal` is no `float`, but a caller means the same by them.
"""

from __future__ import annotations

import math
from numbers import Number
from operator import index
from typing import SupportsFloat, SupportsIndex


def whole(value: object) -> int | None:
    """Return `value` as an `int` if it is a whole number of any type, else `None`.

    >>> whole(7), whole(7.0), whole(True)
    (7, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return index(value)
    except TypeError:  # as of a numpy array of more than one element
        return None


def real(value: object) -> float | None:
    """Return `value` as a `float` if it is a number of any type, else `None`.

    Beyond all floats it is infinite.
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
