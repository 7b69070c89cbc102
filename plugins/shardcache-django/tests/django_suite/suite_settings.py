"""Settings of Django's own tests: this backend takes the place of the cache in memory."""

from __future__ import annotations

import test_sqlite  # Django's own, beside `runtests.py`
from django.core.cache.backends import locmem
from suite_cache import Tested

locmem.LocMemCache = Tested

globals().update({name: value for name, value in vars(test_sqlite).items() if name.isupper()})

SESSION_ENGINE = "django.contrib.sessions.backends.cache"
TEST_RUNNER = "suite_results.Runner"
