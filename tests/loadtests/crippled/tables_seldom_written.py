"""Locust writes its tables so seldom that its last rows would be old when the run ends."""

from locust import stats

stats.CSV_STATS_INTERVAL_SEC = 2.7
