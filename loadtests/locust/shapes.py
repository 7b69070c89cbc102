"""How many users there are at each moment of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import web_tab
from locust.runners import STATE_INIT, MasterRunner
from options import Choices, RefusedError
from run import choices_of, current, user_classes_of

from locust import LoadTestShape, User
from shardcache import ShardCacheError

SPIKE: Final = 3  # times as many users in the middle third


def flat(_share: float, users: int) -> int:
    """Return all users, all the time."""
    return users


def ramp(share: float, users: int) -> int:
    """Return more and more users, up to all of them at the end; `share` of the run is over."""
    return max(1, round(users * min(1.0, share)))


def spike(share: float, users: int) -> int:
    """Return all users, and three times as many in the middle third."""
    return users * SPIKE if 1 / 3 <= share < 2 / 3 else users


SHAPES: Final[Mapping[str, Callable[[float, int], int]]] = {
    "flat": flat,
    "ramp": ramp,
    "spike": spike,
}


class ScenarioShape(LoadTestShape):
    """The users of the chosen scenario, for as long as the run is to last."""

    use_common_options = True
    _choices: Choices

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        """Return how many users there are to be, how fast they come, and of which classes."""
        environment = self.runner.environment
        if isinstance(self.runner, MasterRunner) and not self.runner.worker_count:
            web_tab.refuse("no worker is connected: start one with --worker")
            return None
        if self.runner.state == STATE_INIT:
            # The clock still shows the run before this one.
            moment = 0.0
            try:
                self._choices = choices_of(environment)
            except (RefusedError, ShardCacheError):
                # The start of the run refuses them, and says so: see `listeners`.
                return 1, 1.0, environment.user_classes
        else:
            # As they were at the start: the page's form may have been changed since.
            moment = current.moment()
        choices = self._choices
        if moment >= choices.seconds:
            return None
        users = SHAPES[choices.shape](max(0.0, moment) / choices.seconds, choices.users)
        return users, choices.spawn_rate, user_classes_of(environment, choices.scenario)
