"""A store that keeps the expiry of the value that it replaces."""

from __future__ import annotations

from shardcache.core.commands import CasKeep, CasUntil, GetExpiry, Reply, Until
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member


async def store_keeping(
    cluster: Cluster, member: Member, command: CasKeep, deadline: float
) -> Reply:
    """Store by `command`; where the server cannot keep an expiry, read its date and store with that.

    The date belongs to the value that is replaced: a write in between voids the token. A `touch` in
    between does not.
    """
    if CasKeep in member.supports:
        return await cluster.ask(member, command, deadline)
    expiry = await cluster.ask(member, GetExpiry(command.key), deadline)
    if isinstance(expiry, Until) and not expiry.exact:
        expiry = await cluster.ask(member, GetExpiry(command.key), deadline)
    if not isinstance(expiry, Until):
        return expiry
    return await cluster.ask(member, CasUntil(*command, expiry), deadline)
