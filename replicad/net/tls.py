"""TLS: a server context from two files, for the clients' door one that follows its files; between nodes a client context that trusts nobody, and the pin that decides instead.

The handshake of a link proves with the node's own signature which certificate is its own (``protocol.handshake``); every later connection to that node must show the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from functools import cache
from typing import TYPE_CHECKING, Any

from replicad.crypto import certificate as certificates
from replicad.errors import ConfigurationError, PeerError
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.model.ids import Digest

log = get(__name__)

TLS_HANDSHAKE_TIMEOUT_S = 10.0
LOOK_S = 5.0
"""So often a certificate's files are looked at: two stat calls. A guess; renewals happen weeks before the end."""


class _Leaving(ssl.SSLObject):
    """Says that it closes and closes: RFC 8446 section 6.1 asks nobody to wait until the other side has said it, too, which would be up to 30 s of a connection that nobody uses, also when the daemon stops."""

    def unwrap(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            super().unwrap()


def server_context(certificate: Path, key: Path, *, oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """For a door, without client certificates; between nodes TLS 1.3 only. Raises ConfigurationError for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _Leaving
    context.minimum_version = oldest
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot use the TLS certificate {certificate} with the key {key}: {error}") from None
    return context


class LiveCertificate:
    """The certificate of a door for clients or people: TLS 1.2 and 1.3, and every handshake gets what the files held at the last look. Files that cannot be used change nothing: ``problem`` tells of them
    until they are mended. Raises ConfigurationError when made of such files.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.problem = ""
        self._key = key
        self._seen = self._look()
        self._newest = self._load()
        self.ends = certificates.ends(certificate)
        self.context = self._load()
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _server_name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest

    async def follow(self, *, look_s: float = LOOK_S) -> None:
        """Look at the files for ever."""
        while True:
            await asyncio.sleep(look_s)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Take what the files hold now, if they changed since the last look and can be used."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            newest, ends = self._load(), certificates.ends(self.certificate)
        except ConfigurationError as error:
            self.problem = error.message
            log.warning("the new certificate cannot be used, the old one stays", reason=error.message)
            return
        self._newest, self.ends, self.problem = newest, ends, ""
        log.info("a new certificate is in use", certificate=self.certificate, ends=ends.date())

    def _load(self) -> ssl.SSLContext:
        return server_context(self.certificate, self._key, oldest=ssl.TLSVersion.TLSv1_2)

    def _look(self) -> list[tuple[int, int, int] | None]:
        """What changes with a file: also with one that a symbolic link now leads to."""
        return [_identity(path) for path in (self.certificate, self._key)]


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@cache
def client_context() -> ssl.SSLContext:
    """For connections to peer doors. It verifies nothing: call ``check_pin`` after connecting. TLS 1.2 is accepted because the door may stand behind an older proxy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslobject_class = _Leaving
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def abort(transport: Any) -> None:
    """Close a transport at once; harmless when the connection is lost already (asyncio's TLS transport raises AttributeError then on Python 3.11.2, which Debian 12 has)."""
    with contextlib.suppress(AttributeError):
        transport.abort()


def seen_certificate(transport: Any) -> Digest | None:
    """Fingerprint of the certificate that the other side of a connected transport showed; None without TLS. ``transport`` is anything with asyncio's ``get_extra_info``."""
    tls = transport.get_extra_info("ssl_object")
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    return certificates.fingerprint(der) if der else None


def check_pin(transport: Any, pin: Digest | None) -> None:
    """Raises PeerError("wrong-pin") unless the transport's other side showed the pinned certificate. A pin of None asks for nothing (the member's door is without TLS of its own)."""
    seen = seen_certificate(transport)
    if pin is not None and seen != pin:
        raise PeerError(f"TLS certificate is not the pinned one (seen {seen or 'none'}, expected {pin})", code="wrong-pin")
