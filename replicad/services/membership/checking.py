"""``peer check``: tries to reach a member step by step and says where it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from replicad.errors import InputError, ReplicadError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from replicad.model.ids import NodeId
    from replicad.net.dialer import Ping
    from replicad.net.link import Link
    from replicad.services.membership.local import Local

T = TypeVar("T")

SKEW_WARN_MS = 2_000
"""Protocol.md section 3: warn at 2 s of skew against peers."""


@dataclass(frozen=True)
class Step:
    """One step. ``ok`` None: it could not be tried, or it is not decisive."""

    step: str
    ok: bool | None
    detail: str


class Checking:
    """Part of ``Membership``."""

    def __init__(self, local: Local) -> None:
        self._local = local

    async def check(self, node: NodeId) -> list[Step]:
        """Steps ``address``, ``resolve``, ``connect``, ``certificate``, ``handshake``, ``version``, ``clock``; the first that fails is the last. NotFoundError if it is no member, InputError if it is this node."""
        local = self._local
        if local.member(node).id == local.own:
            raise InputError("this is the node itself: name another member", hint="replicad doctor")
        link = local.links.get(node)
        urls, pin = local.standing.address(node)
        url = link.peer_url if link is not None and link.peer_url else next(iter(urls), None)
        steps = [Step("link", link is not None, _linked(link))]
        if url is None:
            return [
                *steps,
                Step(
                    "address",
                    None if link else False,
                    "no address of its peer door is known: it has never been linked with this network's members, or has no door",
                ),
            ]
        steps.append(Step("address", True, url))
        try:
            steps += await self._connect(url, pin)
            steps += await self._talk(url, node, link)
        except _FailedError as failed:
            steps.append(failed.step)
        return steps

    async def _connect(self, url: str, pin: object) -> list[Step]:
        addresses = await _tried("resolve", self._local.dialer.resolve(url))
        steps = [Step("resolve", True, ", ".join(addresses))]
        seen, elapsed_s = await _tried("connect", self._local.dialer.examine(url))
        steps.append(Step("connect", True, f"{elapsed_s * 1000:.0f} ms"))
        if seen is None:
            steps.append(Step("certificate", True, "no TLS: every message carries a MAC instead"))
        elif seen == pin:
            steps.append(Step("certificate", True, f"pinned, SHA-256 {seen}"))
        else:
            steps.append(Step("certificate", None, f"SHA-256 {seen} is not the one its newest head names; the handshake decides"))
        return steps

    async def _talk(self, url: str, node: NodeId, link: Link | None) -> list[Step]:
        """Ping under the link that there is, or make one."""
        local = self._local
        if link is not None:
            answer = await _tried("handshake", local.dialer.ping(link, url))
            return [Step("handshake", True, "under the link's session"), Step("version", True, str(link.version)), self._clock(answer)]
        fresh = await _tried("handshake", local.dialer.link(url, local.identity(), expect=node))
        steps = [Step("handshake", True, "both keys proven"), Step("version", True, str(fresh.version))]
        local.links.adopt(fresh)
        return [*steps, self._clock(await _tried("clock", local.dialer.ping(fresh, url)))]

    @staticmethod
    def _clock(answer: Ping) -> Step:
        skew_ms = answer.clock_ms - int((time.time() - answer.elapsed_s / 2) * 1000)
        return Step("clock", abs(skew_ms) < SKEW_WARN_MS, f"{abs(skew_ms) / 1000:.1f} s {'ahead' if skew_ms > 0 else 'behind'}")


class _FailedError(Exception):
    def __init__(self, step: Step) -> None:
        super().__init__(step.detail)
        self.step = step


async def _tried(step: str, work: Awaitable[T]) -> T:
    try:
        return await work
    except ReplicadError as error:
        raise _FailedError(Step(step, ok=False, detail=error.message)) from None


def _linked(link: Link | None) -> str:
    if link is None:
        return "none at this moment"
    return f"{'to' if link.outgoing else 'from'} it, for {link.age_s:.0f} s" + (f", round trip {link.rtt_s * 1000:.0f} ms" if link.rtt_s is not None else "")
