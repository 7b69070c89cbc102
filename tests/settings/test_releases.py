"""What users read when the framework of an adapter is too old."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from shardcache import ConfigurationError
from shardcache.settings import releases
from shardcache.settings.releases import require


@pytest.mark.parametrize("installed", ["1.2.9", "1.2", "0.99.1", "1"])
def test_an_older_release_is_refused(monkeypatch: pytest.MonkeyPatch, installed: str):
    """The error names both, and how to get what is needed."""
    monkeypatch.setattr(releases, "version", lambda _: installed)
    with pytest.raises(ConfigurationError) as caught:
        require("shardcache-web", "web", "1.3")
    assert str(caught.value) == (
        f"shardcache-web needs web 1.3 or newer, and {installed} is installed: pip install 'web>=1.3'"
    )


@pytest.mark.parametrize("installed", ["1.3", "1.3.0rc1", "1.10", "2.0.dev20260101", "10"])
def test_the_oldest_and_newer_releases_are_taken(monkeypatch: pytest.MonkeyPatch, installed: str):
    """Numbers are compared, not texts."""
    monkeypatch.setattr(releases, "version", lambda _: installed)
    require("shardcache-web", "web", "1.3")


def test_a_release_without_metadata_is_taken(monkeypatch: pytest.MonkeyPatch):
    """As in a frozen program."""

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(releases, "version", version)
    require("shardcache-web", "web", "1.3")
