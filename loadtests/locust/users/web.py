"""Users that ask the example application for its pages."""

from __future__ import annotations

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
        self._pace = constant_throughput(current.part.rate)

    def wait_time(self) -> float:
        """Return the seconds until the next visit is due."""
        return float(self._pace(self))

    @task
    def visit(self) -> None:
        """Ask for the report."""
        moment, began = current.moment(), time.perf_counter()
        with self.client.get(f"{self.path}/{NUMBER}", name=self.page, catch_response=True) as reply:
            right = reply.status_code == 200 and reply.json()["number"] == NUMBER
            if not right:
                reply.failure(
                    f"status {reply.status_code}: {reply.text[:80] if reply.text else ''}"
                )
        current.calls += 1
        current.figures.call(moment, self.page, time.perf_counter() - began)
        current.figures.count(moment, self.page, "errors", not right)


class PageUser(ReportUser):
    """Visits the page behind `cached(lock=True, stale=…)`."""

    path = "/reports"
    page = "page, cached(lock)"


class UnprotectedPageUser(ReportUser):
    """Visits the page that is cached by hand."""

    path = "/unprotected/reports"
    page = "page, by hand"
