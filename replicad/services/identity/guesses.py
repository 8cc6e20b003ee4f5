"""How often somebody may try to log in: the first few wrong passwords cost nothing, each further one doubles the wait, for the name that is guessed and for the address that guesses.

A try counts as wrong until it is known to be right, so that many at once are no way around it. Who guesses at a name can make its owner wait, too: for at most five minutes, and sessions, tokens and the Unix
socket are not concerned.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

KEPT_MAX = 16_384
"""Names and addresses together, about 200 bytes each; the longest unseen is forgotten first."""
FREE = {"name": 5, "address": 20}
"""Wrong ones without a wait. A guess: people mistype, and an office has one address."""
WAIT_S_MAX = 300.0
"""288 guesses a day at a name, whoever makes them."""
FORGOTTEN_S = 3600.0
"""After so long without a wrong one, all is forgotten."""
_DOUBLINGS_MAX = 16
_NETWORK_BITS = 64
"""Of an IPv6 address: what a customer of a provider has at least (RFC 6177)."""


@dataclass(slots=True)
class _Wrong:
    count: int = 0
    next_s: float = 0.0
    last_s: float = 0.0


class Guesses:
    """``now_s`` is monotonic."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._wrong: OrderedDict[tuple[str, str], _Wrong] = OrderedDict()

    def take(self, name: str, address: str) -> float:
        """One try for both; or for none of them, and how many seconds it must wait."""
        now_s = self._now_s()
        found = {key: self._found(key, now_s) for key in _keys(name, address)}
        wait_s = max(wrong.next_s for wrong in found.values()) - now_s
        if wait_s > 0:
            return wait_s
        for key, wrong in found.items():
            wrong.count += 1
            doublings = min(wrong.count - FREE[key[0]], _DOUBLINGS_MAX)
            wrong.next_s = now_s + min(2.0**doublings, WAIT_S_MAX) if doublings >= 0 else now_s
            wrong.last_s = now_s
            self._wrong[key] = wrong
            self._wrong.move_to_end(key)
        while len(self._wrong) > KEPT_MAX:
            self._wrong.popitem(last=False)
        return 0.0

    def give_back(self, name: str, address: str) -> None:
        """Nothing was found out about the password: the try did not count."""
        for key in _keys(name, address):
            if (wrong := self._wrong.get(key)) is not None:
                wrong.count, wrong.next_s = max(0, wrong.count - 1), self._now_s()

    def right(self, name: str, address: str) -> None:
        """The try was right: what was guessed at the name before is forgotten. At the address it is not, else who has one account could guess at all others for ever."""
        self.give_back(name, address)
        self._wrong.pop(_keys(name, address)[0], None)

    def _found(self, key: tuple[str, str], now_s: float) -> _Wrong:
        wrong = self._wrong.get(key)
        return wrong if wrong is not None and now_s - wrong.last_s < FORGOTTEN_S else _Wrong(0, now_s, now_s)


def _keys(name: str, address: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("name", name.casefold()), ("address", _network(address))


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, _NETWORK_BITS), strict=False))
