"""Many keys are grouped in one loop, and each is where it is alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.keys import KeySpace
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import Topology
from shardcache.errors import InvalidKeyError
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import grouper, grouping, router
from shardcache.strategies.pymemcache import Pymemcache
from shardcache.strategies.rendezvous import Rendezvous

NODES = [Node(f"memory://{letter}") for letter in "abcde"]
keys = st.one_of(
    st.text("abc:", max_size=6),
    st.text(max_size=6),
    st.binary(max_size=6),
    st.sampled_from(["4:shop:cart", b"4:shop:cart", "~sc:k:x", "", b"", "\ud800", "9", ":", "~"]),
)


@pytest.mark.parametrize("namespace", ["", "shop"])
@pytest.mark.parametrize("strategy", [Rendezvous, Pymemcache])
@given(asked=st.lists(keys, max_size=8))
def test_a_group_has_each_key_where_it_is_alone(namespace, strategy, asked):
    """Whatever the keys are, with their names, in their order, and each once; the error is the same."""
    topology = Topology(NODES, strategy())
    members = {node.name: Member(node, None) for node in NODES}
    space = KeySpace(namespace)
    try:
        one_by_one = grouping(router(topology, members, space))(asked)
    except InvalidKeyError as error:
        with pytest.raises(
            InvalidKeyError, match=str(error).replace("(", r"\(").replace(")", r"\)")
        ):
            grouper(topology, members, space)(asked)
        return
    groups = grouper(topology, members, space)(iter(asked))
    assert [(member, list(group.items())) for member, group in groups.items()] == [
        (member, list(group.items())) for member, group in one_by_one.items()
    ]


def test_a_key_that_is_no_key_is_refused_among_others():
    """The error names its type."""
    group = grouper(
        Topology(NODES, Rendezvous()), {node.name: Member(node, None) for node in NODES}, KeySpace()
    )
    with pytest.raises(InvalidKeyError, match="not int"):
        group(["a", 7])
