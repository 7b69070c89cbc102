"""How far a recompute has come, and which callers may share its outcome.

A caller that begins after an invalidation has returned, in any process, must not get a value whose
recompute began before that invalidation. The node tells them apart: the leader's stub is gone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from shardcache.core.commands import Reply
from shardcache.errors import NodeError
from shardcache.operations.invalidation.tags import UNREACHABLE

if TYPE_CHECKING:
    from shardcache.operations.recompute.claims import Claim


class Tagged(NamedTuple):
    """The tags of a result, with their versions after the recompute.

    `versions` is `None` if one of the tags was invalidated during the recompute.
    """

    tags: Sequence[bytes]
    versions: Sequence[bytes] | None


class Progress:
    """How far a flight has come.

    `as_of` is the time (monotonic seconds) at which it last began to read or to compute: its outcome
    is as new as that. While the function runs, `claim` is its claim on the key's node, and
    `versions` are the versions of the tags when it began. `tagged` is known at its end: what its
    result says of its tags, if they depend on the result.
    """

    __slots__ = ("as_of", "claim", "renews", "tagged", "versions")

    def __init__(self, now: float, *, renews: bool = False) -> None:
        self.as_of = now
        self.renews = renews
        self.claim: Claim | None = None
        self.versions: Sequence[bytes] | None = ()
        self.tagged: Tagged | None = None

    def read(self, now: float) -> None:
        """Note the start of a read."""
        self.as_of = now

    def compute(self, now: float, claim: Claim, versions: Sequence[bytes] | None) -> None:
        """Note the start of the function's call."""
        # Other threads read these, the claim first.
        self.versions = versions
        self.as_of = now
        self.claim = claim


class FirstRead(NamedTuple):
    """What a caller has read: the reply of the key's node, requested after `began`.

    `token` is the CAS token of the reply, if the backend's stubs do not say whose they are;
    `versions` are the versions of the tags.
    """

    began: float
    reply: Reply
    versions: Sequence[bytes | None] = ()
    token: Hashable | None = None

    def may_join(self, progress: Progress) -> bool:
        """Return whether the outcome of a flight will be no older than this call."""
        claim = progress.claim
        if claim is None or progress.as_of >= self.began:
            return True
        if isinstance(self.reply, NodeError):
            return True  # unknown, and joining spares the source
        still_holds = claim.matches(self.reply, self.token)
        return still_holds and tags_agree(self.versions, progress.versions)


def tags_agree(seen: Sequence[bytes | None], versions: Sequence[bytes] | None) -> bool:
    """Return whether, as far as is known, no tag was invalidated since a flight read its version."""
    if versions is None:  # the node of a tag failed; perhaps it still does
        return not all(seen)
    return all(now in {UNREACHABLE, then} for now, then in zip(seen, versions, strict=True))
