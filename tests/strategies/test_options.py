"""Options are read strictly, and a strategy refuses what it cannot place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.placement.hashing import hash_tag
from shardcache.core.placement.nodes import MAX_WEIGHT, Node
from shardcache.errors import ConfigurationError, TopologyError
from shardcache.strategies.crc16 import Crc16
from shardcache.strategies.jump import Jump
from shardcache.strategies.ketama import Ketama
from shardcache.strategies.maglev import Maglev
from shardcache.strategies.modulo import Modulo
from shardcache.strategies.pymemcache import Pymemcache
from shardcache.strategies.rendezvous import Rendezvous

ALL = [Rendezvous, Ketama, Maglev, Jump, Pymemcache, Modulo, Crc16]
NODES = [Node(f"memcached://10.0.0.{number}:11211") for number in range(4)]


@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        (Rendezvous(), "rendezvous"),
        (Rendezvous(slots="65536"), "rendezvous"),
        (Rendezvous(slots=262_144), "rendezvous:slots=262144"),
        (Ketama(profile="twemproxy", hash="md5"), "ketama:hash=md5,profile=twemproxy"),
        (Ketama(hash_tags="yes"), "ketama:hash_tags=true"),
        (Ketama(hash_tags=False), "ketama"),
        (Maglev(table="655373"), "maglev:table=655373"),
        (Modulo(profile="libmemcached", hash="crc"), "modulo:hash=crc,profile=libmemcached"),
        (Crc16(hash_tags="true"), "crc16"),
    ],
)
def test_a_strategy_is_named_by_its_options(strategy, name):
    """The name holds what differs from the defaults, however it was spelled."""
    assert strategy.name == name
    assert repr(strategy) == f"<strategy {name}>"


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (Ketama, {"profil": "x"}, "'ketama' has no option 'profil' (known: hash, hash_tags, prof"),
        (
            Ketama,
            {"profile": "kettle"},
            "'ketama': profile must be one of libmemcached, ",
        ),
        (Ketama, {"hash": "md5"}, "profile libmemcached has no such hash (known: default)"),
        (Ketama, {"profile": "twemproxy", "hash": "crc"}, "hash must be one of default, "),
        (Modulo, {"hash": "md5"}, "profile python-memcached has no such hash (known: default)"),
        (
            Rendezvous,
            {"slots": "1000"},
            "'rendezvous': slots must be one of 65536, 262144",
        ),
        (Rendezvous, {"slots": True}, "slots must be one of 65536, 262144"),
        (Maglev, {"table": None}, "table must be one of 65537, 655373, 251"),
        (Jump, {"hash_tags": "maybe"}, "hash_tags must be one of false, true"),
        (Crc16, {"hash_tags": "false"}, "hash_tags must be one of true"),
    ],
)
def test_a_bad_option_is_named_with_what_is_known(factory, options, message):
    """The error says which option of which strategy, and what would do."""
    with pytest.raises(ConfigurationError) as raised:
        factory(**options)
    assert message in str(raised.value)


def test_all_bad_options_are_listed():
    """One run shows every fault."""
    with pytest.raises(ConfigurationError) as raised:
        Maglev(table="7", M="65537", hash_tags="?")
    assert len(raised.value.faults) == 3


@pytest.mark.parametrize("factory", ALL)
@given(st.text(), st.text())
def test_a_tag_decides_where_hash_tags_are_on(factory, before, after):
    """Keys of one tag share a node, whatever stands around it, and so do their next nodes."""
    placement = factory(hash_tags=True).build(NODES)
    key = (before.replace("{", "") + "{tag}" + after).encode()
    assert placement.owner(key) is placement.owner(b"{tag}")
    assert placement.preference(key, 3) == placement.preference(b"{tag}", 3)


@pytest.mark.parametrize("factory", [factory for factory in ALL if factory is not Crc16])
def test_a_tag_is_plain_text_otherwise(factory):
    """Without the option braces mean nothing, and the digest tells the two apart."""
    plain, tagged = factory().build(NODES), factory(hash_tags=True).build(NODES)
    keys = [b"{tag}%d" % number for number in range(50)]
    assert len({plain.owner(key) for key in keys}) > 1
    assert plain.digest != tagged.digest


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        (b"a{b}c", b"b"),
        (b"a{b}{c}", b"b"),
        (b"{{b}}", b"{b"),
        (b"a{}b", b"a{}b"),
        (b"a{}{b}", b"a{}{b}"),
        (b"a}b{c", b"a}b{c"),
        (b"}{b}", b"b"),
        (b"", b""),
    ],
)
def test_the_tag_is_what_redis_cluster_takes(key, tag):
    """From the first `{` to the first `}` after it, unless that is empty."""
    assert hash_tag(key) == tag


def weighted(*weights):
    """Give nodes of these weights."""
    return [Node(f"memory://{index}", weight=weight) for index, weight in enumerate(weights)]


@pytest.mark.parametrize(
    ("strategy", "nodes", "message"),
    [
        (Jump(), weighted(1, 2), "'jump' takes no weights"),
        (Pymemcache(), weighted(1, 2), "'pymemcache' takes no weights"),
        (Modulo(), weighted(1, 1.5), "'modulo' takes whole weights: 1"),
        (Modulo(), weighted(1, 10**9), "weights sum to 1000000001"),
        (Modulo(profile="libmemcached"), weighted(1, 2), "libmemcached takes no weights"),
        (Ketama(), weighted(1e-60, 2e-60), "the weights are too small"),
        (Maglev(table=251), weighted(*[1] * 252), "252 nodes need a table above 251"),
    ],
)
def test_nodes_that_cannot_be_placed_are_refused(strategy, nodes, message):
    """No strategy places keys by guesswork."""
    with pytest.raises(TopologyError, match=message):
        strategy.build(nodes)


@pytest.mark.parametrize("factory", ALL)
@given(st.lists(st.floats(5e-324, MAX_WEIGHT), min_size=1, max_size=5))
def test_any_weights_are_placed_or_refused(factory, weights):
    """However far apart weights are, a placement is made in time, or a plain error."""
    nodes = weighted(*weights)
    options = {"table": 251} if factory is Maglev else {}
    try:
        placement = factory(**options).build(nodes)
    except TopologyError:
        return
    assert placement.owner(b"key") in nodes
    assert len(placement.preference(b"key", len(nodes))) == len(nodes)


def test_jump_changes_at_its_end_only():
    """A node may join or leave at the end; any other change would move most keys."""
    strategy = Jump()
    strategy.check_change(NODES, NODES[:2])
    strategy.check_change(NODES[:2], NODES)
    for after in (NODES[1:], NODES[::-1], [*NODES[:1], *NODES[2:]], [NODES[3], *NODES[:3]]):
        with pytest.raises(TopologyError, match="allows changes only at the end"):
            strategy.check_change(NODES, after)


@pytest.mark.parametrize("factory", [factory for factory in ALL if factory is not Jump])
def test_the_others_follow_any_change(factory):
    """Any node may leave, and all may be replaced."""
    factory().check_change(NODES, NODES[1:])
    factory().check_change(NODES[:2], NODES[2:])


@pytest.mark.parametrize("factory", ALL)
def test_only_our_own_strategies_hash_the_namespace(factory):
    """Who keeps keys where another client put them hashes what that client hashed."""
    assert factory().hashes_namespace is (factory not in {Ketama, Pymemcache, Modulo})
