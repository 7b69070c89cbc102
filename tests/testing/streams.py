"""Traffic of a known profile, and a program whose traffic is recorded."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from itertools import accumulate

from shardcache import KeysAccessed, Node
from shardcache.testing.traffic import Traffic

NODE = Node("memory://a")
NODES = ["memory://a", "memory://b", "memory://c"]
SIZES = {100: 0.5, 2_000: 0.3, 35_000: 0.2}
TTLS = {60.0: 0.6, 6_480.0: 0.3, None: 0.1}
BATCH = 12

PROGRAM = """
import sys
from shardcache import Client
from shardcache.testing import ProfileRecorder
recorder = ProfileRecorder(sys.argv[1])
client = Client("memory://a", observers=[recorder])
"""


def access(*keys, operation="get", size=None, ttl=None, node=NODE):
    """Return the event of one call."""
    return KeysAccessed(operation, node, keys, [size] * len(keys), ttl)


def profile_of(*events, max_keys=1_000):
    """Return the profile that these events make."""
    traffic = Traffic(max_keys)
    for event in events:
        traffic.add(event, [hash(key) for key in event.keys])
    return traffic.profile("p", 1.0)


class Stream:
    """Traffic of known figures: what it did is in `done`, in keys touched, and in `misses`."""

    def __init__(self, client, *, keys, alpha, seed):
        self.client = client
        self.random = random.Random(seed)
        self.weights = list(accumulate(rank**-alpha for rank in range(1, keys + 1)))
        self.stored = {}
        self.done = Counter()
        self.sizes = Counter()
        self.ttls = Counter()
        self.reads = Counter()
        self.met = set()
        self.misses = self.batched = 0

    def run(self, calls):
        """Make so many calls."""
        kinds = [self.get, self.get_many, self.set, self.delete]
        for kind in self.random.choices(kinds, weights=[70, 1, 25, 4], k=calls):
            kind()

    def key(self):
        """Return a key, by its popularity."""
        (number,) = self.random.choices(range(len(self.weights)), cum_weights=self.weights)
        return f"secret:{number:06}"

    def get(self):
        """Read one key."""
        key = self.key()
        self.read([key])
        self.client.get(key)

    def get_many(self):
        """Read a batch of distinct keys."""
        keys = self.random.sample(range(len(self.weights)), BATCH)
        keys = [f"secret:{number:06}" for number in keys]
        self.read(keys)
        self.batched += len(keys)
        self.client.get_many(keys)

    def read(self, keys):
        """Note what reading these keys finds."""
        self.done["get"] += len(keys)
        found = [key for key in keys if key in self.stored]
        self.reads.update(found)
        self.met.update(found)
        self.misses += sum(key not in self.stored for key in keys)
        self.sizes.update(self.stored[key] for key in keys if key in self.stored)

    def set(self):
        """Write one key."""
        key = self.key()
        (size,) = self.random.choices(list(SIZES), weights=SIZES.values())
        (ttl,) = self.random.choices(list(TTLS), weights=TTLS.values())
        self.met.add(key)
        self.done["set"] += 1
        self.stored[key] = size
        self.sizes[size] += 1
        self.ttls[ttl] += 1
        self.client.set(key, bytes(size), ttl=ttl)

    def delete(self):
        """Remove one key."""
        key = self.key()
        self.done["delete"] += 1
        self.stored.pop(key, None)
        self.client.delete(key)


def run_program(file, *lines):
    """Run a program that has a recorder and a client; return what it said on standard error."""
    program = PROGRAM + "\n".join(lines)
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)],
        cwd="/",  # the checkout would be imported in place of the installed package
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr
