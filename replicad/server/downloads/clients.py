"""Who asks: the client's address, as the connection says or, from a proxy that the configuration trusts, as that says (X-Forwarded-For, read from its end)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicad.model.access import Network
    from replicad.server.downloads.requests import Request

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
FORWARDED = "X-Forwarded-For"
HOPS_MAX = 16
"""Proxies in a row; what stands before is not looked at."""
_SITE_BITS = 64
"""Of an IPv6 address: what one customer has at least (RFC 6177), so what counts as one client."""


def address_of(request: Request, proxies: Sequence[Network]) -> Address | None:
    """The client's address; None if nobody says. A header of anybody but a trusted proxy is ignored: it is the client's own word."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    address = parse(str(peer[0])) if isinstance(peer, tuple) else None
    if address is None or not proxies or not is_in(address, proxies):
        return address
    said = ",".join(request.headers.getall(FORWARDED, ())).split(",")
    for text in reversed(said[-HOPS_MAX:]):
        before = parse(text.strip())
        if before is None:
            break
        address = before
        if not is_in(address, proxies):
            break
    return address


def is_in(address: Address | None, networks: Iterable[Network]) -> bool:
    """Whether one of the networks contains it."""
    return address is not None and any(address.version == network.version and address in network for network in networks)


def one_client(address: Address | None) -> str:
    """What counts as the same client when it misbehaves: an IPv4 address, the site of an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address) >> (128 - _SITE_BITS) << (128 - _SITE_BITS), _SITE_BITS)))
    return str(address)


@lru_cache(maxsize=4096)
def parse(text: str) -> Address | None:
    """An address, perhaps with brackets or a zone; IPv4 in the clothes of IPv6 is IPv4."""
    try:
        found = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
