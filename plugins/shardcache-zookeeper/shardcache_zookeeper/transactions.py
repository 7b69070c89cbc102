"""A lock's directory and its node in one transaction, which kazoo's own requests cannot say."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from kazoo.exceptions import EXCEPTIONS, RolledBackError, RuntimeInconsistency
from kazoo.protocol.serialization import (
    Create,
    Create2,
    Delete,
    MultiHeader,
    Transaction,
    read_string,
    stat_struct,
)
from kazoo.protocol.states import ZnodeStat
from kazoo.security import OPEN_ACL_UNSAFE

EPHEMERAL_SEQUENTIAL: Final = 3
CONTAINER: Final = 4

_error = struct.Struct("!i")


class CreateContainer(Create2):  # type: ignore[misc]  # kazoo has no types
    """Create a directory that the servers remove some time after its last node has gone."""

    __slots__ = ()
    type = 19


class LockTransaction(Transaction):  # type: ignore[misc]  # as above
    """Several requests, of which all have an effect or none; its reply is a result or an error for each."""

    __slots__ = ()

    @classmethod
    def deserialize(cls, data: bytes, offset: int) -> Sequence[Any]:
        """Return the results; that of a creation is the path, with what the server tells of it."""
        results: list[Any] = []
        header, offset = MultiHeader.deserialize(data, offset)
        while not header.done:
            result: Any = True
            if header.type == Create.type:
                result, offset = read_string(data, offset)
            elif header.type in {Create2.type, CreateContainer.type}:
                path, offset = read_string(data, offset)
                result = path, ZnodeStat._make(stat_struct.unpack_from(data, offset))
                offset += stat_struct.size
            elif header.type == -1:
                (code,) = _error.unpack_from(data, offset)
                result = EXCEPTIONS[code]()
                offset += _error.size
            results.append(result)
            header, offset = MultiHeader.deserialize(data, offset)
        return results


def create_in_new_directory(
    directory: str, prefix: str, data: bytes, acl: Sequence[Any] | None
) -> LockTransaction:
    """Return the request for a directory and its first node, whose number follows `prefix`."""
    acl = acl or OPEN_ACL_UNSAFE
    return LockTransaction(
        [
            CreateContainer(directory, b"", acl, CONTAINER),
            Create(prefix, data, acl, EPHEMERAL_SEQUENTIAL),
        ]
    )


def created(results: Sequence[Any]) -> tuple[str, int]:
    """Return the path of the node, and the number of the transaction; raise what it failed with.

    The directory has been created by the same transaction, so its number is the node's.
    """
    _raise_failure(results)
    (_, stat), path = results
    return path, stat.czxid


def delete_with_directory(path: str) -> LockTransaction:
    """Return the request that deletes a node, and its directory, if no other node is there."""
    return LockTransaction([Delete(path, -1), Delete(path.rpartition("/")[0], -1)])


def deleted(results: Sequence[Any]) -> None:
    """Raise what a deletion failed with."""
    _raise_failure(results)


def _raise_failure(results: Sequence[Any]) -> None:
    """Raise the error of the request that failed; the others were undone, or not tried."""
    for result in results:
        if isinstance(result, Exception) and not isinstance(
            result, (RolledBackError, RuntimeInconsistency)
        ):
            raise result
