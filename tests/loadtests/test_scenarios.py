"""Each scenario's verdict is missed, for the right reason, when the guard it watches is crippled."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.servers, pytest.mark.slow]

STEADY = ("--scenario", "steady", "-u", "10", "-t", "5s")
FAULT = ("-u", "10", "-t", "18s")
STAMPEDE = ("--scenario", "stampede", "-u", "40", "-t", "8s")
APP = ("--scenario", "app", "-u", "40", "-t", "8s")
EXAMPLES = ("--scenario", "examples", "-u", "40", "-t", "8s")


@pytest.mark.parametrize("kind", ["memcached", "redis", "both"])
@pytest.mark.parametrize("arguments", [STEADY, STAMPEDE, APP], ids=["steady", "stampede", "app"])
def test_what_is_sound_holds(play, kind, arguments):
    """The scenarios that judge no times hold on every kind of servers."""
    played = play(*arguments, "--own-servers", kind)
    assert (played.status, played.verdict) == (0, "holds"), played.output


@pytest.mark.parametrize(
    ("crippled", "arguments", "missed"),
    [
        ("values_lost", STEADY, "hit rate within 1 point"),
        ("values_mixed_up", STEADY, "no values of another key"),
        ("no_single_flight", STAMPEDE, "1 recompute for each time the value was missing"),
        # At a rate at which both processes ask while the value is computed.
        (
            "no_lock",
            (*STAMPEDE, "--processes", "2", "--rate", "15"),
            "1 recompute for each time the value was",
        ),
        ("app_without_lock", APP, "1 recompute for each time the value was missing"),
        ("errors_raised", ("--scenario", "node-killed", *FAULT), "no errors that reached a caller"),
        ("never_restored", ("--scenario", "node-killed", *FAULT), "the node serves hits within"),
        ("never_ejected", ("--scenario", "node-stopped", *FAULT), "the node is ejected"),
        (
            "no_stand_ins",
            ("--scenario", "node-killed", "--failover", "next", *FAULT),
            "no key loaded twice",
        ),
        (
            "no_warming",
            ("--scenario", "node-added", "--warm-for", "600", *FAULT),
            "hit rate after the change within",
        ),
        ("keys_moved_by_modulo", ("--scenario", "node-added", *FAULT), "keys that move: at most"),
        ("ejected_when_slow", ("--scenario", "slow-node", *FAULT), "no node is ejected for being"),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value else "",
)
def test_a_crippled_guard_is_a_missed_verdict(play, crippled, arguments, missed):
    """Without its guard a scenario ends with status 1, and says what was missed."""
    played = play(*arguments, crippled=[crippled])
    assert played.status == 1, played.output
    assert played.verdict.startswith("MISSED: "), played.output
    assert missed in played.verdict


@pytest.mark.parametrize(
    "arguments",
    [
        ("--scenario", "node-killed", "--failover", "next"),
        ("--scenario", "node-killed", "--failover", "gutter"),
        ("--scenario", "node-added", "--warm-for", "600"),
    ],
    ids=["next", "gutter", "warm"],
)
def test_with_its_guard_the_verdict_holds(play, arguments, tmp_path):
    """A key is loaded once while its node is out; a warm-up keeps the hit rate. Figures say which.

    Times are another matter: other tests run at the same moment.
    """
    played = play(*arguments, *FAULT, "--report", str(tmp_path))
    missed = played.verdict.removeprefix("MISSED: ").split("; ") if played.status else []
    assert all(each.startswith("p99 of calls") for each in missed), played.output
    (figures,) = tmp_path.glob("*.figures.json")
    assert figures.name.endswith(f"-memcached-{_way(arguments)}.figures.json")


def _way(arguments):
    return "warm-600" if "600" in arguments else arguments[-1]


def test_each_example_without_its_lock_is_a_missed_verdict(play):
    """Django's, Flask's and FastAPI's, each by its own row; no request fails for that."""
    played = play(*EXAMPLES, crippled=["app_without_lock"])
    assert played.status == 1, played.output
    for name in ("Django", "Flask", "FastAPI"):
        assert f"{name}: 1 recompute for each time the value was missing" in played.verdict
        assert f"{name}: no request failed" not in played.verdict
