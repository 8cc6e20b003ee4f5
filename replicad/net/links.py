"""The table of links: at most one per member, in which everybody finds them.

It routes messages to handlers and authenticates data requests against the sessions of its links. When two nodes dial each other at the same moment both keep the same one of the two links
(``supersedes``).
"""

from __future__ import annotations

import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from replicad.crypto.session import Credentials, Session
from replicad.errors import PeerError
from replicad.model.ids import NodeId
from replicad.net.link import Frames, Link, LinkConfig, Peer, monotonic_ms
from replicad.protocol.wire import Message
from replicad.telemetry.log import get

__all__ = ["Frames", "Handler", "Link", "LinkConfig", "LinkTable", "Peer", "supersedes"]

log = get(__name__)

UPS_AND_DOWNS = 10
"""Of one member, each, so many a minute are told: more than a bad line makes, and a member that links and leaves in a loop fills no log."""
SIMULTANEOUS_S = 15.0
"""Two links younger than this may come from both sides dialling at once: longer than a handshake may take (10 s) plus a margin."""
RETIRED_SESSION_S = 30.0
RETIRED_SESSIONS_MAX = 1024
PARTINGS_MAX = 4096
TELL_AGAIN_S = 600.0
"""A former member is told so rarely why it is none: once is enough unless that got lost, and up to half a megabyte goes with it."""

M = TypeVar("M", bound=Message)
Handler = Callable[[Link, M], Awaitable[None] | None]


def supersedes(new: Link, old: Link, own: NodeId) -> bool:
    """Whether ``new`` replaces ``old`` to the same member; both sides decide alike.

    Opened by the same side: the newer one (its opener has lost the other). By different sides at about the same moment: the one opened by the smaller node id. Otherwise the newer one: a
    node that has a link does not dial.
    """
    if new.outgoing == old.outgoing or old.age_s - new.age_s > SIMULTANEOUS_S:
        return True
    return new.outgoing == (own < new.node)


@dataclass
class _Retired:
    node: NodeId
    session: Session
    until_s: float


@dataclass
class LinkTable:
    """The links of this node. ``own`` is its id; ``may_link`` is asked for every data request and for every new link whether that node is a member now; ``was_cut`` whether a cut ended its
    membership, and ``parting`` what such a node is told of that.
    """

    own: NodeId
    may_link: Callable[[NodeId], bool] = lambda _node: True
    was_cut: Callable[[NodeId], bool] = lambda _node: False
    parting: Callable[[NodeId], Message | None] = lambda _node: None
    _links: dict[NodeId, Link] = field(default_factory=dict)
    _handlers: dict[type, Handler[Any]] = field(default_factory=dict)
    _up: list[Callable[[Link], None]] = field(default_factory=list)
    _down: list[Callable[[Link, str], None]] = field(default_factory=list)
    _stopped: bool = False
    _keepers: list[Callable[[Link], None]] = field(default_factory=list)
    _retired: deque[_Retired] = field(default_factory=lambda: deque(maxlen=RETIRED_SESSIONS_MAX))
    _parted: dict[NodeId, float] = field(default_factory=dict)
    _told: dict[NodeId, float] = field(default_factory=dict)

    def get(self, node: NodeId) -> Link | None:
        """The working link to that member, if any."""
        return self._links.get(node)

    def all(self) -> tuple[Link, ...]:
        """All working links."""
        return tuple(self._links.values())

    def parted_s(self, node: NodeId) -> float | None:
        """Seconds since the last link to that member ended; None if there was none since this node started."""
        ended_s = self._parted.get(node)
        return None if ended_s is None else time.monotonic() - ended_s

    def route(self, message_type: type[M], handler: Handler[M]) -> None:
        """Let ``handler(link, message)`` have every message of that type, in order per link. An awaitable it returns is awaited before the link's next message is read. One handler a type."""
        if message_type in self._handlers:
            raise ValueError(f"{message_type.__name__} has a handler already")
        self._handlers[message_type] = handler

    def on_up(self, callback: Callable[[Link], None]) -> None:
        """Call back with every link that begins to work."""
        self._up.append(callback)

    def on_down(self, callback: Callable[[Link, str], None]) -> None:
        """Call back with every link that ended (also when another to the same member replaces it: then its successor is up already) and the reason."""
        self._down.append(callback)

    def authenticate(self, authorization: str | None, method: str, target: str, range_: str = "") -> Link:
        """The link of the member that made a data request, if its ``Authorization`` value proves it. ``target`` is the raw path and query, ``range_`` the Range header's value.

        Raises PeerError: ``bad-credentials``, ``session-expired``, ``replay``, ``not-a-member``. The link may be a newer one than the request was made under.
        """
        credentials = Credentials.parse(authorization)
        link = self._links.get(credentials.node)
        if link is None or link.closed:
            raise PeerError("no link with the node that asks", code="bad-credentials")
        if not self.may_link(link.node):
            raise PeerError("the node that asks is not a member", code="not-a-member")
        if credentials.session in link.session.ids:
            link.check(credentials, method, target, range_)
            return link
        for retired in self._retired:
            if retired.node == link.node and retired.until_s > time.monotonic() and credentials.session in retired.session.ids:
                retired.session.check(credentials, method, target, range_, now_ms=monotonic_ms())
                return link
        raise PeerError("credentials of another session", code="bad-credentials")

    def may_prove(self, node: NodeId) -> bool:
        """Whether a node may finish a handshake: members, and former ones who have not been told lately why they are none."""
        return self.may_link(node) or (self.was_cut(node) and time.monotonic() - self._told.get(node, -TELL_AGAIN_S) >= TELL_AGAIN_S)

    def dismiss(self, link: Link) -> None:
        """Close the link of a node that is no member (any more), and let it know why: its key is proven, and nobody else hears it."""
        if not link.closed:
            _note(self._told, link.node)
            link.close("not a member of the network", code="not-a-member", parting=self.parting(link.node))

    async def run(self, link: Link) -> str:
        """Serve a link until it ends; returns the reason. It is in the table meanwhile, unless its member is none any more or another link to it is the better one."""
        listed = self._add(link)
        try:
            return await link.run(self._dispatch)
        finally:
            if listed:
                self._remove(link)

    def adopt(self, link: Link) -> None:
        """Hand a new link to whoever keeps links: it is served until it ends. Nobody there: it is closed."""
        for keeper in self._keepers:
            keeper(link)
        if not self._keepers:
            link.close("nobody keeps links")

    def on_adopt(self, keeper: Callable[[Link], None]) -> None:
        """Take over links that others opened."""
        self._keepers.append(keeper)

    def close_all(self, reason: str) -> None:
        """Close every link."""
        for link in self.all():
            link.close(reason, code="bye")

    def stop(self, reason: str) -> None:
        """Close every link and take up no more."""
        self._stopped = True
        self.close_all(reason)

    def _add(self, link: Link) -> bool:
        if self._stopped:
            link.close("this node stops", code="bye")
            return False
        old = self._links.get(link.node)
        if not self.may_link(link.node):
            self.dismiss(link)
            return False
        if old is not None and not old.closed and not supersedes(link, old, self.own):
            self._retire(link)
            link.close("another link to this member stays", code="duplicate")
            return False
        self._links[link.node] = link
        if old is not None:
            self._retire(old)
            old.close("replaced by a newer link", code="duplicate")
        log.seldom(("up", link.node), "link up", level=logging.INFO, at_most=UPS_AND_DOWNS, peer=link.node.short, outgoing=link.outgoing)
        for callback in self._up:
            callback(link)
        return True

    def _retire(self, link: Link) -> None:
        """Data requests made a moment ago under the session of a link that ended are still good once there is another link to that member: the two may cross."""
        self._retired.append(_Retired(link.node, link.session, time.monotonic() + RETIRED_SESSION_S))

    def _remove(self, link: Link) -> None:
        if self._links.get(link.node) is link:
            del self._links[link.node]
            self._retire(link)
            _note(self._parted, link.node)
        log.seldom(("down", link.node), "link down", level=logging.INFO, at_most=UPS_AND_DOWNS, peer=link.node.short, reason=link.reason)
        for callback in self._down:
            callback(link, link.reason)

    def _dispatch(self, link: Link, message: Message) -> Awaitable[None] | None:
        handler = self._handlers.get(type(message))
        if handler is None or self._links.get(link.node) is not link:
            return None
        result = handler(link, message)
        return result if inspect.isawaitable(result) else None


def _note(times: dict[NodeId, float], node: NodeId) -> None:
    """It happened now; the oldest are forgotten."""
    times.pop(node, None)
    times[node] = time.monotonic()
    while len(times) > PARTINGS_MAX:
        del times[next(iter(times))]
