"""Grants with an end: renewed in time by the admin that gave them, as long as the node is there; and the moment at which one ends is told like any other change of members.

An admin gives a life so that a node which nobody misses loses its rights by itself. What is renewed is what the member has: the same rights for the same life again, from now.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from replicad.errors import ReplicadError
from replicad.model.events import TrustChanged
from replicad.model.ids import NETWORK_SHARE
from replicad.model.records import Role
from replicad.services.membership import changes
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from replicad.model.members import Member
    from replicad.services.membership.local import Local

log = get(__name__)

LOOK_S = 30.0
"""How often it is looked at who is there. A guess: the shortest life is ten minutes, and three minutes of it are left for renewing."""
RENEW_PART = 3
"""A grant is renewed in the last third of its life."""


class Lasting:
    """Part of ``Membership``."""

    def __init__(self, local: Local) -> None:
        self._local = local

    async def run(self) -> None:
        """Renew, and tell who dropped out, until cancelled."""
        local = self._local
        with local.hub.subscribe(TrustChanged) as news:
            members = local.members().keys()
            while True:
                try:
                    await self.renew()
                except ReplicadError as error:
                    log.seldom("renew", "grants cannot be renewed; it will be tried again", reason=error.message)
                if (now := local.members().keys()) != members:
                    members = now
                    local.hub.publish(TrustChanged())
                try:
                    async with asyncio.timeout(self._rest_s()):
                        await news.wait()
                except TimeoutError:
                    continue

    async def renew(self) -> None:
        """Renew what is due."""
        local = self._local
        due = [member for member in local.members().values() if self._is_due(member)]
        at = local.now()
        if due and local.catalog.replica.trust.may(local.own, share=NETWORK_SHARE, path_key=None, stage=None, role=Role.ADMIN, at=at):
            await local.author([changes.of_member(member).grant(member.id, member.name, at=at) for member in due])
            log.info("grants renewed", members=",".join(sorted(member.name for member in due)))

    def _is_due(self, member: Member) -> bool:
        local = self._local
        is_there = local.links.get(member.id) is not None or local.standing.linked(member.id, int(time.monotonic() * 1000))
        return member.life_left(local.clock_ms()) < 1 / RENEW_PART and member.admitted_by == local.own and is_there

    def _rest_s(self) -> float:
        """Until the next look, or until the next grant ends."""
        now_ms = self._local.clock_ms()
        ends_ms = (member.until.ms - now_ms + 1 for member in self._local.members().values() if member.until)
        return max(0.001, min(LOOK_S, min(ends_ms, default=LOOK_S * 1000) / 1000))
