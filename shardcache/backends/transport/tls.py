"""The TLS context that the URL of a node, or of another service, asks for."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from typing import Final

from shardcache.core.placement.nodes import Node
from shardcache.core.placement.url_warnings import NO
from shardcache.core.secrecy import takes_secrets
from shardcache.errors import ConfigurationError

TLS_OPTIONS: Final = (
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "ssl_min_version",
)

# The numbers are redis-py's.
_VERSIONS: Final = {
    "1.2": ssl.TLSVersion.TLSv1_2,
    "771": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
    "772": ssl.TLSVersion.TLSv1_3,
}

_YES: Final = ("true", "yes", "1")


@takes_secrets
def tls_context(node: Node, context: ssl.SSLContext | None) -> ssl.SSLContext:
    """Return `context`, or a new one by the options in the node's URL, as `build_context` does.

    Each fault names the node.
    """
    options = dict(node.address.options)
    try:
        return build_context(options, context)
    except ConfigurationError as error:
        faults = error.faults
    raise ConfigurationError(*(f"node {node.name}: {fault}" for fault in faults))


@takes_secrets
def build_context(options: Mapping[str, str], context: ssl.SSLContext | None) -> ssl.SSLContext:
    """Return `context`, or a new one by the options of a URL.

    The options have the names of redis-py. The server is verified unless `ssl_cert_reqs=none`.
    `ssl_ca_certs` is a file of authorities that replaces the system's, `ssl_certfile` and
    `ssl_keyfile` are the client's own, `ssl_check_hostname=false` accepts a certificate of another
    name, `ssl_min_version` is `1.2` or `1.3`. Raise `ConfigurationError` listing every fault, such
    as options next to a `context`. No fault quotes a value.
    """
    if context is not None:
        also = [name for name in TLS_OPTIONS if name in options]
        if also:
            raise ConfigurationError(
                f"{', '.join(also)} in its URL: the ssl_context decides that;"
                " leave out one of the two"
            )
        return context
    faults: list[str] = []
    authorities = options.get("ssl_ca_certs")
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:
        faults.append(f"ssl_ca_certs cannot be read: {_why(error)}")
        context = ssl.create_default_context()
    faults += [*_apply_options(context, options), *_load_certificates(context, options)]
    if faults:
        raise ConfigurationError(*faults)
    return context


def _apply_options(context: ssl.SSLContext, options: Mapping[str, str]) -> Iterator[str]:
    """Set what is verified; yield the faults of the options."""
    checks = options.get("ssl_check_hostname", "true")
    if checks.lower() in NO:
        context.check_hostname = False
    elif checks.lower() not in _YES:
        yield "ssl_check_hostname must be true or false"
    required = options.get("ssl_cert_reqs", "required")
    if required.lower() == "none":
        if options.get("ssl_check_hostname", "").lower() in _YES:
            yield (
                "ssl_check_hostname=true and ssl_cert_reqs=none contradict each other: the name in a"
                " certificate that is not verified proves nothing"
            )
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif required.lower() not in ("optional", "required"):
        yield "ssl_cert_reqs must be none, optional or required"
    version = options.get("ssl_min_version", "1.2")
    if version not in _VERSIONS:
        yield "ssl_min_version must be 1.2 or 1.3"
    elif "ssl_min_version" in options:
        context.minimum_version = _VERSIONS[version]


def _load_certificates(context: ssl.SSLContext, options: Mapping[str, str]) -> Iterator[str]:
    """Load the client's own certificate; yield the faults of its options."""
    own, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if own is None:
        if key is not None:
            yield "ssl_keyfile is given without its ssl_certfile"
        return
    try:
        context.load_cert_chain(own, key)
    except OSError as error:
        suffix = "" if key is None else " with ssl_keyfile"
        yield f"ssl_certfile{suffix} cannot be loaded: {_why(error)}"


def _why(error: OSError) -> str:
    return error.strerror or str(error)
