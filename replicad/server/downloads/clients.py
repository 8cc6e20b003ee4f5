"""Who asks: the client's address, as the connection says or, from a proxy that the configuration trusts, as that says (X-Forwarded-For, read from its end)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from replicad.model.addresses import parse

if TYPE_CHECKING:
    from replicad.model.access import Network
    from replicad.model.addresses import Address
    from replicad.server.downloads.requests import Request

FORWARDED = "X-Forwarded-For"
HOPS_MAX = 16
"""Proxies in a row; what stands before is not looked at."""


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
