"""The fields of a `Shadow` are checked when it is made."""

from __future__ import annotations

import pickle
from datetime import timedelta
from decimal import Decimal

import pytest

from shardcache import Client, ConfigurationError, Node, Settings, Shadow
from shardcache.strategies.rendezvous import Rendezvous

URL = "redis://10.0.0.1"


def test_a_shadow_is_a_value():
    """Durations in seconds, nodes as nodes."""
    shadow = Shadow(
        [URL, Node("redis://10.0.0.2")],
        sample=Decimal("0.5"),
        settle=timedelta(seconds=1),
        ttl_tolerance=0,
        queue=5,
    )
    assert [node.name for node in shadow.nodes] == ["10.0.0.1:6379", "10.0.0.2:6379"]
    assert (shadow.sample, shadow.settle, shadow.ttl_tolerance, shadow.queue) == (0.5, 1.0, 0.0, 5)
    assert pickle.loads(pickle.dumps(shadow)) == shadow
    assert Shadow(URL, strategy=Rendezvous()).strategy.name == "rendezvous"
    assert Shadow(URL).strategy is None


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"nodes": "redis://10.0.0.1:x"}, "nodes: "),
        ({"nodes": "memory://a"}, "nodes: a memory node is empty until its client writes to it"),
        ({"sample": 0}, "sample: must be a number from 0.000001 to 1"),
        ({"sample": 1.1}, "sample: "),
        ({"sample": True}, "sample: "),
        ({"sample": "0.1"}, "sample: "),
        ({"sample": float("nan")}, "sample: "),
        ({"strategy": 7}, "strategy: must be the name of a strategy, or a strategy"),
        ({"settle": -1}, "settle: "),
        ({"ttl_tolerance": "1"}, "ttl_tolerance: "),
        ({"queue": 0}, "queue: must be a whole number of at least 1"),
        ({"queue": 1.5}, "queue: "),
    ],
)
def test_bad_fields_are_named(arguments, fault):
    """Each with what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        Shadow(**{"nodes": URL, **arguments})
    (found,) = caught.value.faults
    assert found.startswith(fault)


def test_all_faults_are_in_one_error():
    """So that they are mended at once."""
    with pytest.raises(ConfigurationError) as caught:
        Shadow([], sample=2, queue=0)
    assert len(caught.value.faults) == 3


def test_no_password_is_shown():
    """Neither by the value nor by the settings that hold it."""
    shadow = Shadow("redis://:hunter2@10.0.0.1")
    assert "hunter2" not in repr(shadow)
    assert "hunter2" not in repr(Settings.of(nodes="memory://a", shadow=shadow))


def test_a_client_takes_nothing_else_for_a_shadow():
    """The error names the type that is wanted."""
    with pytest.raises(ConfigurationError, match=r"shadow: must be a shardcache\.Shadow"):
        Client("memory://a", shadow=URL)


def test_settings_pass_it_on():
    """To a client that is made from them."""
    shadow = Shadow(URL)
    client = Client.from_settings(Settings.of(nodes="memory://a", shadow=shadow))
    assert client._settings.shadow is shadow
    client.close()


def test_tls_of_the_shadow_alone_is_reason_enough_for_a_context():
    """The context is for its nodes as well."""
    import ssl  # noqa: PLC0415

    context = ssl.create_default_context()
    shadow = Shadow("rediss://10.0.0.1")
    settings = Settings.of(nodes="redis://10.0.0.1", ssl_context=context, shadow=shadow)
    assert settings.ssl_context is context
