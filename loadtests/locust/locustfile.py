"""What Locust loads: `locust -f loadtests/locust/locustfile.py`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # where the example application is

import listeners  # noqa: F401 - binds the kit to Locust's events
from shapes import ScenarioShape
from users.direct import CachedUser, LockUser, StampedeUser, TrafficUser
from users.web import DjangoUser, FastAPIUser, FlaskUser, PageUser, UnprotectedPageUser

__all__ = [
    "CachedUser",
    "DjangoUser",
    "FastAPIUser",
    "FlaskUser",
    "LockUser",
    "PageUser",
    "ScenarioShape",
    "StampedeUser",
    "TrafficUser",
    "UnprotectedPageUser",
]
