"""Limits as they stand: what the configuration says, what was set here on top of it, what the hour of the week makes of it; and which nodes are paused.

What is set here is kept in the catalog and survives a restart, until it is set back to ``default``. Rates by time follow this node's wall clock and change with the minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, TypeVar

import msgspec

from replicad.errors import InputError
from replicad.model.ids import NodeId
from replicad.model.limits import DOWNLOAD, NONE, SITE, UPLOAD, Limits, Rate, Window, check_scope, parse_rate, show_rate
from replicad.net.pace import TOTAL
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from replicad.catalog import Catalog
    from replicad.net.pace import Paces

log = get(__name__)

DEFAULT = "default"
WINDOWS_MAX = 64
SCOPES_MAX = 256
_KEY = "limits"


class Set(msgspec.Struct, frozen=True):
    """What was set here: rates by scope, all windows (None: those of the configuration), rates by node id, nodes that are paused; everything as text."""

    rates: dict[str, str] = {}
    windows: tuple[str, ...] | None = None
    peers: dict[str, str] = {}
    paused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One limit: its scope (``download``, ``upload``, ``site:NAME`` or a node's id), the rate that applies now, the one outside of all windows, and whether that was set here."""

    scope: str
    now: Rate
    rate: Rate
    is_set: bool


class LimitsService:
    """``changed`` is called when other limits or pauses apply than before. ``zone`` None: the system's."""

    def __init__(
        self, catalog: Catalog, paces: Paces, *, configured: Limits, zone: tzinfo | None, clock_ms: Callable[[], int], changed: Callable[[], None]
    ) -> None:
        self._catalog = catalog
        self._paces = paces
        self._configured = configured
        self._zone = zone
        self._clock_ms = clock_ms
        self._changed = changed
        self._set = Set()
        self._applied: object = None

    async def load(self) -> None:
        """Take up what was set before this start. To be called once, before anything flows."""
        kept = await self._catalog.meta(_KEY)
        self._set = Set() if kept is None else msgspec.json.decode(kept, type=Set)
        self._apply()

    async def run(self) -> None:
        """At every full minute apply what the week makes of the limits, until cancelled."""
        while True:
            left_s = self.minute()
            await asyncio.sleep(left_s)

    def minute(self) -> float:
        """Apply what the week makes of the limits now; returns the seconds left of this minute."""
        self._apply()
        return 60 - self._clock_ms() / 1000 % 60

    def configure(self, configured: Limits, zone: tzinfo | None) -> None:
        """The configuration says something else now."""
        self._configured, self._zone = configured, zone
        self._apply()

    # -- what there is

    @property
    def zone(self) -> str:
        """Whose wall clock the windows follow, for people."""
        return "the system's" if self._zone is None else str(self._zone)

    @property
    def windows(self) -> tuple[tuple[Window, ...], bool]:
        """All windows, and whether they were set here."""
        return self._limits().windows, self._set.windows is not None

    def rows(self) -> list[Row]:
        """All limits that there are, for the two directions always."""
        limits, now = self._limits(), self._now()
        scopes = dict.fromkeys((DOWNLOAD, UPLOAD, *sorted({*limits.rates, *(window.scope for window in limits.windows)})))
        rows = [Row(scope, now.get(scope), limits.rates.get(scope), scope in self._set.rates) for scope in scopes]
        return rows + [Row(node, rate, rate, is_set=True) for node, text in sorted(self._set.peers.items()) for rate in [parse_rate(text)]]

    def peer_rate(self, node: NodeId) -> Rate:
        """The limit on transfers with a node, in each direction."""
        return parse_rate(self._set.peers.get(str(node), NONE))

    @property
    def paused(self) -> tuple[str, ...]:
        """The ids of paused nodes."""
        return self._set.paused

    def is_paused(self, node: NodeId) -> bool:
        """Whether nothing is exchanged with it."""
        return str(node) in self._set.paused

    # -- changing it

    async def set(self, *, rates: Mapping[str, str], windows: Sequence[str] | msgspec.UnsetType | None = msgspec.UNSET) -> None:
        """Rates by scope, all windows (None: those of the configuration again): all of it or, with InputError, nothing. The rate "default": what the configuration says again."""
        changed = dict(self._set.rates)
        for scope, text in rates.items():
            changed[_checked("limit", check_scope, scope)] = text if text == DEFAULT else show_rate(_checked(scope, parse_rate, text))
        changed = {scope: text for scope, text in changed.items() if text != DEFAULT}
        if windows is msgspec.UNSET:
            kept = self._set.windows
        else:
            kept = None if windows is None else tuple(str(_checked("windows", Window.parse, text)) for text in windows)
        if len(changed) > SCOPES_MAX or len(kept or ()) > WINDOWS_MAX:
            raise InputError(f"at most {SCOPES_MAX} rates and {WINDOWS_MAX} windows")
        await self._keep(msgspec.structs.replace(self._set, rates=changed, windows=kept))

    async def limit_peer(self, node: NodeId, text: str) -> None:
        """So much may be exchanged with the node in each direction; "none" lifts it. InputError."""
        rate = _checked("rate", parse_rate, text)
        peers = {other: kept for other, kept in self._set.peers.items() if other != str(node)}
        await self._keep(msgspec.structs.replace(self._set, peers=peers if rate is None else {**peers, str(node): show_rate(rate)}))

    async def pause_peer(self, node: NodeId, *, paused: bool) -> None:
        """Exchange nothing with the node, in neither direction, not even what is urgent; or do so again."""
        others = tuple(other for other in self._set.paused if other != str(node))
        await self._keep(msgspec.structs.replace(self._set, paused=(*others, str(node)) if paused else others))

    async def _keep(self, changed: Set) -> None:
        await self._catalog.set_meta(_KEY, msgspec.json.encode(changed).decode(), durable=True)
        self._set = changed
        self._apply()
        log.info("limits changed", rates=changed.rates, windows=changed.windows, peers=len(changed.peers), paused=len(changed.paused))

    # -- applying it

    def _limits(self) -> Limits:
        rates = {scope: parse_rate(text) for scope, text in self._set.rates.items()}
        windows = self._configured.windows if self._set.windows is None else tuple(map(Window.parse, self._set.windows))
        return Limits({**self._configured.rates, **rates}, windows)

    def _now(self) -> dict[str, int]:
        return self._limits().at(datetime.fromtimestamp(self._clock_ms() / 1000, self._zone))

    def _apply(self) -> None:
        now = self._now()
        narrow = {scope: rate for scope, rate in now.items() if scope.startswith(SITE)}
        narrow |= {node: rate for node, text in self._set.peers.items() if (rate := parse_rate(text)) is not None}
        down, up = ({**narrow, **({TOTAL: now[scope]} if scope in now else {})} for scope in (DOWNLOAD, UPLOAD))
        paused = frozenset(map(NodeId.parse, self._set.paused))
        if (down, up, paused) == self._applied:
            return
        self._applied = down, up, paused
        self._paces.paused = paused
        self._paces.down.set(down)
        self._paces.up.set(up)
        self._changed()


T = TypeVar("T")


def _checked(name: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
