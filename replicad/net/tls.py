"""TLS without authorities: a server context from two files, a client context that trusts nobody, and the pin that decides instead.

The handshake of a link proves with the node's own signature which certificate is its own (``protocol.handshake``); every later connection to that node must show the same one.
"""

from __future__ import annotations

import contextlib
import ssl
from functools import cache
from typing import TYPE_CHECKING, Any

from replicad.crypto import certificate as certificates
from replicad.errors import ConfigurationError, PeerError

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.model.ids import Digest

TLS_HANDSHAKE_TIMEOUT_S = 10.0


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For the peer door: TLS 1.3 only, no client certificates. Raises ConfigurationError for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot use the TLS certificate {certificate} with the key {key}: {error}") from None
    return context


@cache
def client_context() -> ssl.SSLContext:
    """For connections to peer doors. It verifies nothing: call ``check_pin`` after connecting. TLS 1.2 is accepted because the door may stand behind an older proxy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
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
