"""Bounds of the downloads door. What an admin may change is in the configuration's [downloads]; these are the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicad.model.access import Network


@dataclass(frozen=True, slots=True)
class DownloadsConfig:
    """Every wait, size and count that a client could otherwise make as large as it likes."""

    proxies: tuple[Network, ...] = ()
    """Whose word about the client's address is believed."""
    url: str = ""
    """How clients reach this door."""
    listing: frozenset[str] = frozenset()
    """Shares whose directories are listed."""
    connections_max: int = 8192
    """Each costs up to three descriptors while it downloads: 24,576 of the 65,536 that the service unit allows. A guess beyond the design's 5,000 idle clients."""
    connections_per_client_max: int = 6144
    """Of one address (of IPv6: one /64), so that nobody alone keeps all others out: three quarters of ``connections_max``, because a whole site may have one address. Trusted proxies have no such bound."""
    idle_s: float = 60.0
    """From a connection's start, or its last answer, to the end of the next request's head: nginx's client_header_timeout and about its keepalive_timeout (75 s)."""
    stall_s: float = 60.0
    """A client that acknowledges no byte for that long (up to twice that) is cut off: nginx's send_timeout."""
    linger_s: float = 2.0
    """How long to swallow a request body that nobody asked for, so that the client reads the answer instead of a reset. A guess; nginx's lingering_timeout is 5 s."""
    arrival_s: float = 30.0
    """A client of a file that still arrives waits so long for its next byte: half of what Munki waits for a server. A chunk of 1 MiB takes that at 0.3 Mbit/s."""
    waiting_max: int = 1024
    """Clients that wait for files that still arrive. A guess: a site's Macs after one publication."""
    request_line_bytes_max: int = 8192
    """RFC 9112 section 3 recommends at least 8,000. Beyond: 414."""
    field_bytes_max: int = 8000
    """One header field, name and value. Beyond: 431. Differs from ``request_line_bytes_max``, which is how the parser's one error for both is told apart."""
    fields_max: int = 64
    """Header fields of a request: browsers and proxies send up to about 30."""
    head_bytes_max: int = 32 << 10
    """A whole head, or a body that nobody asked for: nginx's large_client_header_buffers are 4 of 8 KiB."""
