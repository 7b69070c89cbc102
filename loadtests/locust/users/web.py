"""Users that ask the example application for its pages."""

from __future__ import annotations

import json
import time

from run import current

from locust import FastHttpUser, constant_throughput, task

NUMBER = 7  # of the report that everybody wants


class ReportUser(FastHttpUser):
    """One of many visitors who want the same report."""

    abstract = True
    path = ""
    page = ""

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

    path = "/reports"
    page = "page, cached(lock)"


class UnprotectedPageUser(ReportUser):
    """A visitor of the page that is cached by hand."""

    path = "/unprotected/reports"
    page = "page, by hand"


def _number_in(text: str | None) -> object:
    """Return the number of the report in a page; `None` if it is not a report."""
    try:
        return json.loads(text or "").get("number")
    except (ValueError, AttributeError):
        return None
