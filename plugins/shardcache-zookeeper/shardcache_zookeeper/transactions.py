"""Several requests in one, which kazoo's own cannot say: a lock's directory with its node, and many reads."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from kazoo.exceptions import EXCEPTIONS, NoNodeError, RolledBackError, RuntimeInconsistency
from kazoo.protocol.serialization import (
    Create,
    Create2,
    Delete,
    GetChildren,
    GetData,
    MultiHeader,
    Transaction,
    read_buffer,
    read_string,
    stat_struct,
)
from kazoo.protocol.states import ZnodeStat
from kazoo.security import OPEN_ACL_UNSAFE

EPHEMERAL_SEQUENTIAL: Final = 3
CONTAINER: Final = 4

_number = struct.Struct("!i")


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
            elif header.type == GetChildren.type:
                result, offset = _read_names(data, offset)
            elif header.type == GetData.type:
                content, offset = read_buffer(data, offset)
                result = content, ZnodeStat._make(stat_struct.unpack_from(data, offset))
                offset += stat_struct.size
            elif header.type == -1:
                (code,) = _number.unpack_from(data, offset)
                result = EXCEPTIONS[code]()
                offset += _number.size
            results.append(result)
            header, offset = MultiHeader.deserialize(data, offset)
        return results


class ReadTransaction(LockTransaction):
    """Several reads, each with a result or an error. Needs ZooKeeper 3.6."""

    __slots__ = ()
    type = 22


def _read_names(data: bytes, offset: int) -> tuple[Sequence[str], int]:
    """Return the names of children, and where they end."""
    (count,) = _number.unpack_from(data, offset)
    offset += _number.size
    names = []
    for _ in range(count):
        name, offset = read_string(data, offset)
        names.append(name)
    return names, offset


def read_children(paths: Sequence[str]) -> ReadTransaction:
    """Return the request for the names in directories."""
    return ReadTransaction([GetChildren(path, None) for path in paths])


def read_nodes(paths: Sequence[str]) -> ReadTransaction:
    """Return the request for the data of nodes, each with what the server knows of it."""
    return ReadTransaction([GetData(path, None) for path in paths])


def found(results: Sequence[Any]) -> Sequence[Any]:
    """Return the results of reads, `None` for what is not there; raise what else one failed with."""
    present = [None if isinstance(result, NoNodeError) else result for result in results]
    _raise_failure(present)
    return present


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
