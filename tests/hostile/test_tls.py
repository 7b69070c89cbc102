"""TLS: which server is accepted as a node, and that no other gets the password."""

from __future__ import annotations

import datetime as dt
import logging
import socket
import ssl
import threading
from contextlib import contextmanager

import pytest
import trustme

from shardcache import ConfigurationError, NodeError, NodeUnavailableError
from shardcache.testing.driving import make_client

PASSWORD = "hunter2secret"
HELLO = PASSWORD.encode()
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
OLD_VERSIONS = {"TLS 1.0": ssl.TLSVersion.TLSv1, "TLS 1.1": ssl.TLSVersion.TLSv1_1}


@pytest.fixture(params=["rediss", "memcacheds"])
def scheme(request):
    """Return each scheme with TLS in turn."""
    return request.param


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Return an authority, and the file that makes it trusted."""
    made = trustme.CA()
    made.file = tmp_path_factory.mktemp("tls") / "authority.pem"
    made.cert_pem.write_to_path(made.file)
    return made


class Listener:
    """A server with TLS, or without, that keeps what it receives."""

    def __init__(self, context):
        self.heard = bytearray()
        self.shaken = 0  # hands, of those who went on to say something
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            connection.settimeout(10)
            while said := connection.recv(65536):
                self.heard += said
                self.shaken += 1
                connection.sendall(_answer(said) + b"\r\n")
        except OSError:
            pass
        finally:
            connection.close()

    def close(self):
        """Listen no more."""
        self._socket.close()


def _answer(said):
    """Return yes to a login, and that a key is not there."""
    if said.startswith(b"mg"):
        return b"EN " + said.split()[-1]
    return b"+OK" if b"AUTH" in said else b"$-1"


@contextmanager
def listening(certificate=None, *, configure=lambda _: None):
    """Start a server with a certificate, or without TLS."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        configure(context)
    listener = Listener(context)
    try:
        yield listener
    finally:
        listener.close()


def get(mode, scheme, port, query, host="127.0.0.1"):
    """Read a key of a node with a password, where the scheme has one; return the error or `None`."""
    login = f":{PASSWORD}@" if scheme == "rediss" else ""
    url = f"{scheme}://{login}{host}:{port}{query}"
    client = make_client(mode, url, on_error="raise", timeout=10)
    try:
        client.get("k")
    except NodeError as error:
        return error
    else:
        return None
    finally:
        client.close()


def assert_refused(error, listener):
    """Check that the node was refused, before anything was sent to it."""
    assert isinstance(error, NodeUnavailableError), error
    assert not listener.shaken
    assert HELLO not in listener.heard
    assert b"mg k" not in listener.heard


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("required", ["", "&ssl_cert_reqs=required", "&ssl_cert_reqs=optional"])
def test_a_certificate_of_a_known_authority_is_accepted(mode, scheme, authority, host, required):
    """For the node's name or address."""
    with listening(authority.issue_cert("localhost", "127.0.0.1")) as listener:
        query = f"?ssl_ca_certs={authority.file}{required}"
        assert get(mode, scheme, listener.port, query, host) is None
        assert (HELLO if scheme == "rediss" else b"mg k") in listener.heard


@pytest.mark.parametrize("query", ["", "?ssl_ca_certs=", "?ssl_cert_reqs=optional"])
def test_a_certificate_of_an_unknown_authority_is_refused(mode, scheme, authority, query):
    """Without a file the system's authorities decide."""
    with listening(authority.issue_cert("localhost", "127.0.0.1")) as listener:
        assert_refused(get(mode, scheme, listener.port, query), listener)


def test_a_certificate_of_another_authority_is_refused(mode, scheme, authority):
    """Only the authority of the URL counts."""
    with listening(trustme.CA().issue_cert("localhost", "127.0.0.1")) as listener:
        query = f"?ssl_ca_certs={authority.file}"
        assert_refused(get(mode, scheme, listener.port, query), listener)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_for_another_name_is_refused(mode, scheme, authority, host):
    """A certificate for another name is refused."""
    with listening(authority.issue_cert("cache.example")) as listener:
        query = f"?ssl_ca_certs={authority.file}"
        assert_refused(get(mode, scheme, listener.port, query, host), listener)


def test_an_expired_certificate_is_refused(mode, scheme, authority):
    """So is one whose time is over."""
    expired = authority.issue_cert("localhost", "127.0.0.1", not_after=LONG_AGO)
    with listening(expired) as listener:
        query = f"?ssl_ca_certs={authority.file}"
        assert_refused(get(mode, scheme, listener.port, query), listener)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", OLD_VERSIONS.values(), ids=OLD_VERSIONS)
def test_old_versions_are_refused(mode, scheme, authority, version):
    """TLS 1.0 and 1.1 are not spoken."""

    def configure(context):
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = version

    with listening(authority.issue_cert("127.0.0.1"), configure=configure) as listener:
        query = f"?ssl_ca_certs={authority.file}"
        assert_refused(get(mode, scheme, listener.port, query), listener)


@pytest.mark.parametrize("query", ["", "?ssl_cert_reqs=none"])
def test_a_server_without_tls_is_refused(mode, scheme, query):
    """Even without any verification."""
    with listening() as listener:
        error = get(mode, scheme, listener.port, query)
        assert isinstance(error, NodeUnavailableError), error
        assert HELLO not in listener.heard
        assert b"mg k" not in listener.heard


def test_a_server_that_wants_a_client_certificate_gets_one(mode, scheme, authority, tmp_path):
    """Without one the node is unavailable, and gets no command."""

    def configure(context):
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED

    with listening(authority.issue_cert("127.0.0.1"), configure=configure) as listener:
        query = f"?ssl_ca_certs={authority.file}"
        error = get(mode, scheme, listener.port, query)
        assert isinstance(error, NodeUnavailableError), error
        assert not listener.heard
        own = authority.issue_cert("client.example")
        certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
        own.cert_chain_pems[0].write_to_path(certificate)
        own.private_key_pem.write_to_path(key)
        query += f"&ssl_certfile={certificate}&ssl_keyfile={key}"
        assert get(mode, scheme, listener.port, query) is None


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("ssl_cert_reqs=none", "ssl_cert_reqs=none: any server is accepted"),
        ("ssl_check_hostname=false", "ssl_check_hostname=false: a server with a certificate"),
        ("ssl_check_hostname=no", "ssl_check_hostname=false: a server with a certificate"),
        ("ssl_cert_reqs=NONE&ssl_check_hostname=0", "ssl_cert_reqs=none: any server"),
    ],
)
def test_weakened_verification_is_logged(  # noqa: PLR0913, PLR0917 - fixtures
    mode, scheme, authority, caplog, query, word
):
    """The options work, and are a WARNING when the client is made."""
    issuer = trustme.CA() if "none" in query.lower() else authority
    with (
        listening(issuer.issue_cert("cache.example")) as listener,
        caplog.at_level(logging.WARNING),
    ):
        query = f"?ssl_ca_certs={authority.file}&{query}"
        assert get(mode, scheme, listener.port, query) is None
    assert any(word in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("checks", ["true", "yes", "1", "True"])
def test_contradicting_options_are_refused(mode, scheme, checks):
    """An operator who wants names checked is not left without any verification."""
    url = f"{scheme}://h?ssl_cert_reqs=none&ssl_check_hostname={checks}"
    with pytest.raises(ConfigurationError, match="contradict each other"):
        make_client(mode, url)


@pytest.mark.parametrize(
    "query",
    [
        *("ssl_cert_req=none", "ssl_cert_reqs=False", "ssl_cert_reqs=0", "ssl_cert_reqs="),
        *("ssl_min_version=TLSv1", "ssl_ciphers=ALL", "ssl=false", "ssl_check_hostname="),
    ],
)
def test_no_option_weakens_by_mistake(mode, scheme, query):
    """A misspelt or unknown option is a fault, and never a connection."""
    with pytest.raises(ConfigurationError):
        make_client(mode, f"{scheme}://h?{query}")


@pytest.mark.parametrize("plain", ["redis", "memcached", "pymemcache", "memcached+unix"])
def test_no_option_of_tls_is_taken_without_tls(mode, plain):
    """A scheme without TLS refuses its options: they promise a verification."""
    place = "/s" if plain.endswith("unix") else "h"
    with pytest.raises(ConfigurationError, match="ssl_cert_reqs"):
        make_client(mode, f"{plain}://{place}?ssl_cert_reqs=required")
