"""A failed refresh is logged; a caller that is served the old value does not see it."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from clients.sources import as_called
from shardcache import AsyncClient, Client
from shardcache.testing.driving import MODES, make_client
from shardcache.testing.waiting import eventually

LONG = 30.0


class TestFailingRefreshes:
    """A caller that is served an old value does not see a failed refresh: the log tells it."""

    @pytest.mark.slow
    @pytest.mark.parametrize("refresh", ["background", "inline"])
    def test_a_failed_refresh_in_a_thread_is_logged(self, all_urls, refresh, caplog):
        """Once a minute for each function, by the exception's type and not its text."""
        with Client(all_urls, timeout=2.0) as client:
            up = [True]

            @client.cached(
                ttl=0.01, stale=60, jitter=0, error_backoff=0.01, refresh=refresh, namespace="f"
            )
            def rates():
                if not up[0]:
                    raise ConnectionError("to hunter2@source")
                return 1

            rates()
            up[0] = False
            eventually(lambda: rates() and rates.cache_info().swallowed >= 3, within=LONG)
            (record,) = [each for each in caplog.records if "refreshing" in each.getMessage()]
            assert record.levelname == "WARNING"
            assert "rates failed: ConnectionError" in record.getMessage()
            assert "hunter2" not in caplog.text

    @pytest.mark.parametrize("term", ["condition", "ttl"])
    async def test_a_failed_refresh_in_a_task_is_logged(self, all_urls, term, caplog):
        """So are refreshes that fail in a function of the result."""
        async with AsyncClient(all_urls, timeout=2.0) as client:
            up = [True]

            def check(_):
                if not up[0]:
                    raise ZeroDivisionError
                return 0.01

            terms = {"ttl": 0.01, "stale": 60, "jitter": 0, "error_backoff": 0.01, term: check}

            @client.cached(namespace="f", **terms)
            async def rates():
                return 1

            await rates()
            up[0] = False
            async with asyncio.timeout(LONG):
                while not caplog.records:
                    await rates()
                    await asyncio.sleep(0.01)
            assert "rates failed: ZeroDivisionError" in caplog.text

    async def test_a_refresh_with_ignored_arguments_is_awaited(self, all_urls):
        """A session ends with its request, so the call waits, unless the policy says otherwise."""

        class Session:
            """What is closed behind a request."""

            closed = False

        async with AsyncClient(all_urls, timeout=2.0) as client:
            calls = []

            def cached(**terms):
                @client.cached(ttl=0.05, stale=60, jitter=0, ignore="session", **terms)
                async def load(session, _user):
                    await asyncio.sleep(0.01)
                    calls.append(session.closed)
                    return len(calls)

                return load

            async def request(load):
                session = Session()
                try:
                    return await load(session, 7)
                finally:
                    session.closed = True

            load = cached(namespace="auto")
            assert load.policy.refresh == "inline"
            async with asyncio.timeout(LONG):
                while len(calls) < 3:
                    await request(load)
                    await asyncio.sleep(0.06)
            assert not any(calls)
            assert cached(namespace="told", refresh="background").policy.refresh == "background"

    @pytest.mark.parametrize("mode", MODES)
    def test_a_refresh_has_the_context_of_its_call(self, mode):
        """In threads too: the span of a trace has its parent."""
        seen = []
        span = contextvars.ContextVar("span", default=None)
        client = make_client(mode, "memory://a,b,c")

        def rates():
            seen.append(span.get())
            return 1

        f = as_called(client, rates, ttl=0.01, stale=60, jitter=0, refresh="background")

        def called():
            f()
            return len(seen) > 1

        span.set("request")
        eventually(called, within=LONG)
        assert set(seen) == {"request"}
        client.close()
