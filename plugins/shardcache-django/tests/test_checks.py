"""`manage.py check --deploy` asks each node for all that a client needs."""

from __future__ import annotations

import pytest
from django.apps import AppConfig
from django.core.checks import run_checks
from shardcache_django.checks import check_nodes

pytestmark = pytest.mark.servers


def test_good_nodes_pass(use, urls):
    """The check says nothing."""
    use(urls)
    assert check_nodes() == []


def test_a_dead_node_is_an_error(use, urls):
    """It names the alias, the node and what to do."""
    use([urls[0], "memcached://127.0.0.1:1"], OPTIONS={"timeout": 1.0})
    (error,) = check_nodes()
    assert error.id == "shardcache.E001"
    assert "CACHES['default']: 127.0.0.1:1: " in error.msg
    assert "is the server running there?" in error.msg


def test_the_application_registers_it_for_deployments(use):
    """Other commands ask no node, and caches of other backends are none of its business."""
    AppConfig.create("shardcache_django").ready()
    use("memcached://127.0.0.1:1", OPTIONS={"timeout": 1.0})
    assert run_checks(tags=["caches"]) == []
    assert [error.id for error in run_checks(tags=["caches"], include_deployment_checks=True)] == [
        "shardcache.E001"
    ]
    use("", BACKEND="django.core.cache.backends.dummy.DummyCache")
    assert check_nodes() == []
