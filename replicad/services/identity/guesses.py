"""How often somebody may try to log in: the first few wrong passwords cost nothing, each further one doubles the wait, for the name that is guessed and for the address that guesses.

A try counts as wrong until it is known to be right, so that many at once are no way around it. Who guesses at a name makes its owner wait, too, up to five minutes at a time and for as long as the guessing
goes on; but not at an address from which the name logged in lately, where what is guessed at the name is counted apart. Sessions, tokens and the Unix socket are not concerned.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from replicad.model.addresses import one_client, parse

KEPT_MAX = 16_384
"""Names and addresses together, about 200 bytes each; the longest unseen is forgotten first."""
FREE = {"name": 5, "address": 20}
"""Wrong ones without a wait. A guess: people mistype, and an office has one address."""
WAIT_S_MAX = 300.0
"""288 guesses a day at a name, whoever makes them, and as many from each address where the name is known."""
FORGOTTEN_S = 3600.0
"""After so long without a wrong one, all is forgotten."""
KNOWN_S = 30 * 86400.0
"""So long after the last login from there an address is known to a name, until the daemon's next start."""
_DOUBLINGS_MAX = 16


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
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()

    def take(self, name: str, address: str) -> float:
        """One try for both; or for none of them, and how many seconds it must wait."""
        now_s = self._now_s()
        found = {key: self._found(key, now_s) for key in self._keys(name, address)}
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
        for key in self._keys(name, address):
            if (wrong := self._wrong.get(key)) is not None:
                wrong.count, wrong.next_s = max(0, wrong.count - 1), self._now_s()

    def right(self, name: str, address: str) -> None:
        """The try was right: what was guessed at the name before is forgotten, and the address is known to it. At the address nothing is forgotten, else who has one account could guess at all others for ever."""
        self.give_back(name, address)
        self._wrong.pop(self._keys(name, address)[0], None)
        pair = _pair(name, address)
        self._known[pair] = self._now_s()
        self._known.move_to_end(pair)
        while len(self._known) > KEPT_MAX:
            self._known.popitem(last=False)

    def _found(self, key: tuple[str, str], now_s: float) -> _Wrong:
        wrong = self._wrong.get(key)
        return wrong if wrong is not None and now_s - wrong.last_s < FORGOTTEN_S else _Wrong(0, now_s, now_s)

    def _keys(self, name: str, address: str) -> tuple[tuple[str, str], tuple[str, str]]:
        name, client = pair = _pair(name, address)
        known = self._now_s() - self._known.get(pair, -KNOWN_S) < KNOWN_S
        return ("name", f"{name}\n{client}" if known else name), ("address", client)


def _pair(name: str, address: str) -> tuple[str, str]:
    return name.casefold(), one_client(parse(address))
