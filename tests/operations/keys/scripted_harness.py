"""One process and one node, whose replies a test can change."""

from __future__ import annotations

import math

from operations.harness import Harness
from shardcache.core.capabilities import EVERYTHING, KEEPING
from shardcache.core.commands import Cas, CasUntil, Delete, GetExpiry, Until


class ScriptedHarness(Harness):
    """One process and one node that answers some commands as a test says.

    `replies` has them by the type of the command: a reply, or a function of the command. With
    `coarse` the node cannot keep an expiry, and tells its date instead, as memcached does.
    """

    def __init__(self, *, coarse=False):
        super().__init__()
        self.replies = {}
        (self.node,) = self.nodes
        self._execute, self.node.store.execute = self.node.store.execute, self._executed
        self.commands = self.record_commands()
        (self.known,) = self.members
        self.known.supports = EVERYTHING - KEEPING if coarse else EVERYTHING

    @property
    def kinds(self):
        """Return the types of the commands that the node got, in their order."""
        return [type(command) for command in self.commands]

    def asked(self, *kinds):
        """Return the commands of some kinds that the node got."""
        return [command for command in self.commands if isinstance(command, kinds)]

    def drop(self):
        """Remove the key, as another client does."""
        self._execute(Delete(b"k"))

    def _executed(self, command):
        if type(command) in self.replies:
            reply = self.replies[type(command)]
            return reply(command) if callable(reply) else reply
        return self.respond(command)

    def respond(self, command):
        """Return what the node answers by itself."""
        if isinstance(command, GetExpiry):
            held = self.node.held(command.key)
            return held and Until(0 if held[1] == math.inf else int(held[1]))
        if isinstance(command, CasUntil):
            *stored, (date, _) = command
            command = Cas(*stored, date - self.node._clock() if date else None)
        return self._execute(command)
