"""Until when a session surely lives: what the leader of its ensemble knows of it, and when."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from shardcache.core.leases import validity

# Shares of the session's timeout.
BEAT: Final = 0.125  # how often the client speaks
# A follower reports the sessions that it has heard to the leader twice a tick, and the smallest
# session timeout is two ticks: so within a quarter of it, and a little for the network.
REPORT: Final = 0.3
APART: Final = 1 / 32  # no more requests than these are remembered


class Words:
    """When the ensemble has heard from a session, and what its leader surely knows of that.

    It is the leader that ends a session. A request that a follower has answered is no proof: the
    follower may fail before it reports that, or may have lost its leader already. A *written* word
    is one that a majority has confirmed. It proves that the follower still had its leader when it was
    sent, and so that the leader knows all that the follower had heard a report's time earlier.

    Times are monotonic seconds, those at which requests were sent. Any thread may record one.
    """

    __slots__ = ("_heard", "_known", "_lock", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout  # the session's, in seconds
        self._lock = threading.Lock()
        self._heard: deque[float] = deque()
        self._known = float("-inf")  # the leader ends the session no sooner than a timeout after it

    def connect(self, sent: float, timeout: float) -> None:
        """Record that a server has taken the session; the leader itself confirms that."""
        with self._lock:
            self.timeout = timeout
            self._heard.clear()
            self._known = sent

    def record(self, sent: float, *, written: bool) -> None:
        """Record the answer to a request."""
        with self._lock:
            heard = self._heard
            if not heard or sent - heard[-1] >= APART * self.timeout:
                heard.append(sent)
            reported = sent - REPORT * self.timeout
            while len(heard) > 1 and heard[1] <= reported:
                heard.popleft()  # the next one proves more: without writes they would grow in number
            if written and heard[0] <= reported:
                self._known = max(self._known, heard.popleft())

    def until(self) -> float:
        """Return until when the session lives at least."""
        return self._known + validity(self.timeout, 0.0, whole_seconds=False)
