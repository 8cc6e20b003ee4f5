"""Addresses of those who ask, and which of them are one client."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_SITE_BITS = 64
"""Of an IPv6 address: what one customer has at least (RFC 6177), so what counts as one client."""


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
