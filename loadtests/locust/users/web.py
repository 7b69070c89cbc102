"""Users that ask applications for a page: the one of the load tests, and those of docs/examples."""

from __future__ import annotations

import json
import time

from locust.env import Environment
from run import APP, current

from locust import FastHttpUser, constant_throughput, task

NUMBER = 7  # of the report that everybody wants


class ReportUser(FastHttpUser):
    """One of many visitors who want the same report of the application `site`."""

    abstract = True
    site = ""
    path = "/reports"
    page = ""

    def __init__(self, environment: Environment) -> None:
        self.host = current.plan.sites[self.site]
        super().__init__(environment)

    def on_start(self) -> None:
        """Begin at the pace of the run."""
        self._pace = constant_throughput(current.plan.rate)

    def wait_time(self) -> float:
        """Return the seconds until the next visit is due."""
        return float(self._pace(self))

    @task
    def visit(self) -> None:
        """Ask for the report."""
        moment, began = current.moment(), time.perf_counter()
        with self.client.get(f"{self.path}/{NUMBER}", name=self.page, catch_response=True) as reply:
            right = reply.status_code == 200 and _number_in(reply.text) == NUMBER
            if not right:
                reply.failure(
                    f"status {reply.status_code}: {reply.text[:80] if reply.text else ''}"
                )
        current.calls += 1
        current.figures.count(moment, "", "made")
        current.figures.call(moment, self.page, time.perf_counter() - began)
        current.figures.count(moment, self.page, "errors", not right)


class PageUser(ReportUser):
    """A visitor of the page behind `cached(lock=True, stale=…)`."""

    site = APP
    page = "page, cached(lock)"


class UnprotectedPageUser(ReportUser):
    """A visitor of the page that is cached by hand."""

    site = APP
    path = "/unprotected/reports"
    page = "page, by hand"


class DjangoUser(ReportUser):
    """A visitor of the Django example."""

    site = page = "Django"


class FlaskUser(ReportUser):
    """A visitor of the Flask example."""

    site = page = "Flask"


class FastAPIUser(ReportUser):
    """A visitor of the FastAPI example."""

    site = page = "FastAPI"


def _number_in(text: str | None) -> object:
    """Return the number of the report in a page; `None` if it is not a report."""
    try:
        return json.loads(text or "").get("number")
    except (ValueError, AttributeError):
        return None
