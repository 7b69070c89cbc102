"""Random numbers of the package's own: those of the program's `random` stay as it seeded them."""

from __future__ import annotations

import os
from random import Random

_source = Random()  # noqa: S311 - it spreads waits, and keeps no secret
os.register_at_fork(after_in_child=_source.seed)  # else all children would draw the same

random = _source.random
