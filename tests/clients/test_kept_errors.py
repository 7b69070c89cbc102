"""What `cache_errors` keeps comes back whole, or is raised each time."""

from __future__ import annotations

import pytest

from clients.sources import as_called
from shardcache.testing.driving import MODES, make_client


class TestKeptErrors:
    """What `cache_errors` keeps comes back whole, or is raised each time."""

    class NotFoundError(Exception):
        """With an attribute that is no argument."""

        def __init__(self, user_id, source=None):
            self.user_id = user_id
            self.source = source

        def __str__(self):
            return f"no user {self.user_id}"

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("codec", ["msgpack", "json"])
    def test_an_error_comes_back_whole(self, all_urls, mode, codec, caplog):
        """By its type, text and attributes."""
        client = make_client(mode, all_urls, timeout=2.0, codec=codec)
        calls = []

        def raising(number):
            calls.append(number)
            raise self.NotFoundError(number)

        f = as_called(client, raising, ttl=60, cache_errors=self.NotFoundError, error_ttl=30)
        for _ in range(3):
            with pytest.raises(self.NotFoundError, match="no user 7") as raised:
                f(7)
            assert (raised.value.user_id, raised.value.source) == (7, None)
        assert calls == [7]
        assert caplog.records == []
        client.close()

    @pytest.mark.parametrize("mode", MODES)
    def test_an_error_that_would_not_is_not_stored_and_logged_once(self, all_urls, mode, caplog):
        """The log has its type and not its text."""
        client = make_client(mode, all_urls, timeout=2.0)
        calls = []

        def raising(number):
            calls.append(number)
            raise self.NotFoundError("hunter2", source=client)

        f = as_called(client, raising, ttl=60, cache_errors=self.NotFoundError, error_ttl=30)
        for _ in range(3):
            with pytest.raises(self.NotFoundError) as raised:
                f(7)
            assert raised.value.source is client
        assert calls == [7] * 3
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "cannot cache" in record.getMessage()
        assert "NotFoundError" in record.getMessage()
        assert "raising" in record.getMessage()
        assert "hunter2" not in record.getMessage()
        client.close()

    @pytest.mark.parametrize("mode", MODES)
    def test_an_error_that_comes_back_changed_is_not_stored(self, all_urls, mode):
        """Its text may tell of its cause, which is not stored."""

        class RefusedError(Exception):
            def __str__(self):
                return f"refused, because of {self.__cause__!r}"

        client = make_client(mode, all_urls, timeout=2.0)

        def raising():
            raise RefusedError from KeyError("row")

        f = as_called(client, raising, ttl=60, cache_errors=RefusedError, error_ttl=30)
        for _ in range(2):
            with pytest.raises(RefusedError, match="because of KeyError"):
                f()
        client.close()
