"""What a caller is told when the ensemble cannot decide, or when a ttl cannot be kept."""

from __future__ import annotations

from kazoo.exceptions import AuthFailedError, NoAuthError, UnimplementedError

from shardcache.errors import ConfigurationError, LockUnavailable
from shardcache_zookeeper.ensemble import Ensemble
from shardcache_zookeeper.session import Session


def unavailable(what: str, session: Session, error: BaseException) -> LockUnavailable:
    """Return the error for the callers of `what`, such as `lock 'report'`."""
    ensemble = session.ensemble
    if isinstance(error, NoAuthError):
        reason = "refuses access: check the user and password in the URL, and the ACL of its path"
    elif isinstance(error, AuthFailedError):
        reason = "does not accept the user and password in the URL"
    elif isinstance(error, UnimplementedError):
        reason = (
            "is too old: locks need ZooKeeper 3.5, and the command that shows their holders 3.6"
        )
    elif session.disconnected is not None:
        why = f": {session.refusal}" if session.refusal else ""
        return LockUnavailable(f"{what}: no server of {ensemble} can be reached{why}")
    elif isinstance(error, TimeoutError):
        reason = "did not answer in time"
    else:
        reason = f"failed: {error!r}"
    return LockUnavailable(f"{what}: {ensemble} {reason}")


def check_ttl(what: str, ttl: float, timeout: float, ensemble: Ensemble) -> None:
    """Raise `ConfigurationError` for a ttl that a killed holder's session of `timeout` would outlast."""
    asked = ensemble.session_timeout
    if ttl >= timeout:
        return
    whose = (
        "the smallest session timeout of the servers"
        if timeout > asked
        else f"the session timeout (session_timeout={asked:g} in the URL)"
    )
    raise ConfigurationError(
        f"{what}: a ttl of {ttl:g} s is shorter than {timeout:g} s, {whose}: others would wait that"
        " long for a holder that was killed"
    )
