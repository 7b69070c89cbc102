"""Every process, Python version and release places keys alike.

The literals below are promises: a change of any of them moves users' keys, and is news of the kind
*placement* in the changelog.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import Topology
from shardcache.strategies.crc16 import Crc16
from shardcache.strategies.jump import Jump
from shardcache.strategies.ketama import Ketama
from shardcache.strategies.maglev import Maglev
from shardcache.strategies.modulo import Modulo
from shardcache.strategies.pymemcache import Pymemcache
from shardcache.strategies.rendezvous import Rendezvous

KEYS = [f"user:{number}:é".encode() for number in range(64)]
EQUAL = [Node(f"memcached://10.0.0.{number}:11211") for number in range(1, 10)]
WEIGHTED = [Node(node.url, weight=index) for index, node in enumerate(EQUAL, 1)]
PLACEMENTS = {
    "rendezvous": (Rendezvous(), EQUAL),
    "rendezvous weighted": (Rendezvous(), WEIGHTED),
    "rendezvous 262144": (Rendezvous(slots=262_144), EQUAL),
    "rendezvous tagged": (Rendezvous(hash_tags=True), EQUAL),
    "ketama": (Ketama(), EQUAL),
    "ketama weighted": (Ketama(), WEIGHTED),
    "ketama pylibmc": (Ketama(profile="pylibmc"), EQUAL),
    "ketama libketama": (Ketama(profile="libketama"), WEIGHTED),
    "ketama twemproxy": (Ketama(profile="twemproxy"), WEIGHTED),
    "ketama spymemcached": (Ketama(profile="spymemcached"), EQUAL),
    "maglev": (Maglev(), EQUAL),
    "maglev weighted": (Maglev(), WEIGHTED),
    "jump": (Jump(), EQUAL),
    "pymemcache": (Pymemcache(), EQUAL),
    "modulo": (Modulo(), WEIGHTED),
    "crc16": (Crc16(), WEIGHTED),
}
PINNED = {
    "rendezvous": (
        "8f277826fd27e52ced28497aac186e3b",
        "9247619118686961414925811482816168771387623857956919717127743219",
    ),
    "rendezvous weighted": (
        "8e5f986f8e421888be03df5958f0fc85",
        "9897679398686987496925851482846768775387623857956989787127983869",
    ),
    "rendezvous 262144": (
        "f9c0c66983831c07061eaf028b20e8ad",
        "5275618486781961184923111466357138278785613224734979754936543222",
    ),
    "rendezvous tagged": (
        "b73027bbf5b2b2de92a62bcd14fc1307",
        "9247619118686961414925811482816168771387623857956919717127743219",
    ),
    "ketama": (
        "e4904f420458fa200dfdd9a92b4d2c4f",
        "3824239566154484767415985883685317917295398713339342251726331896",
    ),
    "ketama weighted": (
        "9b441cf47acbbf1f2ec14ae779fd3789",
        "3824899596384484767438985885685677997495398773839771757776399896",
    ),
    "ketama pylibmc": (
        "a2710f46ea3cba40d53892c4ded727d6",
        "1793178989588887254189627553122298296138136832228331939326381287",
    ),
    "ketama libketama": (
        "0e49a53fd258d6b950a1424521b6b5a3",
        "7894365693565324468612798626969789786973298695979766848664567495",
    ),
    "ketama twemproxy": (
        "934236b094d2598e801bf2acf4fd3ca2",
        "9395798479477997914399896494689639474954986667887577388419759652",
    ),
    "ketama spymemcached": (
        "1e317540f15a08bd6f5a3352c2cf39b6",
        "6844365693565324468622723626863389736171298695429766843614367495",
    ),
    "maglev": (
        "0f66bed6e24bb23b5150658315da8397",
        "2355633881719826856911396351389144417182838919699893967355849425",
    ),
    "maglev weighted": (
        "b2ff166a2e44adda4883b59bd443406a",
        "9955699886779826896996996358989849817188898989699893967885889455",
    ),
    "jump": (
        "42e188180c4f254b3861630c9efb3a19",
        "5189784183396586317343727445263872615797659919974645815878164754",
    ),
    "pymemcache": (
        "b238a79164c866a9b6c0a79a70bca6be",
        "9313248189266638871535514898617452559367191213897767738732842769",
    ),
    "modulo": (
        "e6d5b143bf5c870a7ccf64103ef07b62",
        "9686999435789887859196937686983349487869587832484977968692969896",
    ),
    "crc16": (
        "1df17e637a11bc1e0ccee1597bd9bb79",
        "7659873875945791689557946892679567837894788257956892689457836891",
    ),
}


def placed(name):
    """Give the fingerprint and the owners' digits of a placement."""
    strategy, nodes = PLACEMENTS[name]
    topology = Topology(nodes, strategy)
    owners = "".join(str(topology.nodes.index(topology.owner(key)) + 1) for key in KEYS)
    return topology.fingerprint, owners


@pytest.mark.parametrize("name", PLACEMENTS)
def test_fingerprints_and_owners_are_as_ever(name):
    """Python versions and releases agree with these literals, and so with one another."""
    assert placed(name) == PINNED[name]


SCRIPT = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("determinism", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(json.dumps({name: module.placed(name) for name in module.PLACEMENTS}))
"""


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_processes_agree(seed):
    """Another process, with another seed of `hash()`, believes the same."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, __file__]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == {name: list(pinned) for name, pinned in PINNED.items()}


def test_a_fingerprint_tells_placements_apart():
    """No two strategies, options, node sets or weights share a fingerprint."""
    prints = [fingerprint for fingerprint, _ in PINNED.values()]
    assert len(set(prints)) == len(prints)
    assert Topology(EQUAL[1:], Rendezvous()).fingerprint not in prints
