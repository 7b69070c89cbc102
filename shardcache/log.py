"""The logger of the package."""

from __future__ import annotations

import logging
from typing import Final

NAME: Final = "shardcache"

# Nothing is printed in a program that has not set up logging.
logging.getLogger(NAME).addHandler(logging.NullHandler())

log: Final = logging.getLogger(NAME)
