"""Waiting until nodes hold content: a long poll, driven by what the hub tells.

Per node the entries it still lacks stand in order of age, because nodes fetch the oldest first. Only the first of them is looked at again when that node's head changes, so a publication of
many files costs each entry and node once, not once per event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from replicad.errors import BusyError, InputError, NotFoundError
from replicad.model import paths
from replicad.model.entries import Listed
from replicad.model.events import ContentHeld, EntriesChanged, Event, HeadsChanged, LinkDown, LinkUp, TrustChanged
from replicad.model.ids import NodeId, check_share_name
from replicad.model.words import plural
from replicad.server.admin import bodies, nouns, views
from replicad.server.admin.routes import Call
from replicad.server.admin.services import Services
from replicad.services.curation import taken_down

WAITS_MAX = 256
WAITS = web.AppKey("waits", asyncio.Semaphore)
"""How many may wait at the same time."""
LOOK_UP_MAX = 1000
LOOK_AGAIN_S = 1.0
"""Links and heads age without an event, so the state is computed at least this often."""
ENTRIES_PER_TURN = 500
"""Entries looked at before the event loop gets its turn; one takes about 2 microseconds."""


@dataclass(slots=True)
class _Progress:
    """One node: the entries it is not known to hold yet, oldest first; and what it holds."""

    lacks: deque[Listed]
    files_wanted: int
    bytes_wanted: int
    files: int = 0
    bytes: int = 0
    part_bytes: int = 0
    """Of the first that it lacks."""


async def wait(call: Call[bodies.Wait]) -> nouns.Waited:
    """POST /wait. NotFoundError for a name that is not there, InputError if more nodes are asked for than want it."""
    free = call.request.app[WAITS]
    if free.locked():
        raise BusyError(f"{WAITS_MAX} requests wait already")
    async with free:
        return await _wait(call.services, call.asked)


async def _wait(services: Services, asked: bodies.Wait) -> nouns.Waited:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + asked.timeout_s
    keys = frozenset(paths.key(one.path) for one in asked.entries)
    with services.hub.subscribe(ContentHeld, EntriesChanged, HeadsChanged, LinkDown, LinkUp, TrustChanged) as events:
        watched = await _watch(services, asked)
        await _advance(services, watched, watched)
        while True:
            answer = _answer(services, asked, watched)
            left_s = deadline_s - loop.time()
            if answer.state != "pending" or left_s <= 0:
                return answer
            heard = await events.wait(min(left_s, LOOK_AGAIN_S))
            if events.missed or any(_concerns(event, asked.share, keys) for event in heard):
                events.missed = 0
                watched = await _watch(services, asked)
                await _advance(services, watched, watched)
            else:
                changed = {services.node if isinstance(event, ContentHeld) else event.node for event in heard if isinstance(event, ContentHeld | HeadsChanged)}
                await _advance(services, watched, changed)


def _concerns(event: Event, share: str, keys: frozenset[str]) -> bool:
    """Whether after this one of the names may stand for something else, or be wanted by others."""
    if isinstance(event, EntriesChanged):
        return event.share == share and (not event.keys or not keys.isdisjoint(event.keys))
    return isinstance(event, TrustChanged)


async def _watch(services: Services, asked: bodies.Wait) -> dict[NodeId, _Progress]:
    """Every member that wants any of it, nothing known yet."""
    found = sorted(await _find(services, asked), key=lambda listed: listed.hlc)
    stages = {listed.stage for listed in found} if asked.entries else {views.find_share(services, asked.share).stage(asked.stage)}
    watched: dict[NodeId, _Progress] = {}
    for member in views.members_now(services).values():
        carried = {stage for stage in stages if member.carries(asked.share, stage)}
        if carried:
            lacks = deque(listed for listed in found if listed.stage in carried)
            watched[member.id] = _Progress(lacks, len(lacks), sum(listed.size for listed in lacks))
        elif member.id == services.node and asked.nodes != "all" and all(services.catalog.is_held(listed.content) for listed in found):
            watched[member.id] = _Progress(deque(), 0, 0)
    return watched


async def _find(services: Services, asked: bodies.Wait) -> list[Listed]:
    """What the names stand for now."""
    share = views.find_share(services, check_share_name(asked.share)).name
    pairs = [(paths.key(one.path), one.stage) for one in asked.entries if one.stage is not None]
    found: list[Listed | None] = []
    for start in range(0, len(pairs), LOOK_UP_MAX):
        found += await services.catalog.registers(share, pairs[start : start + LOOK_UP_MAX])
    found += [await services.catalog.visible(share, paths.key(one.path)) for one in asked.entries if one.stage is None]
    there = [listed for listed in found if listed is not None]
    for listed in there:
        if listed.taken_down:
            raise taken_down(f"{share}/{listed.path}", listed.content)
    if len(there) < len(found):
        names = {(listed.key, listed.stage) for listed in there} | {(listed.key, None) for listed in there}
        missing = next(one for one in asked.entries if (paths.key(one.path), one.stage) not in names)
        at = f" at stage {missing.stage}" if missing.stage else ""
        raise NotFoundError(f"there is no {missing.path!r} in {share}{at}", hint=f"replicad ls {share}", code="no-such-file")
    return there


async def _advance(services: Services, watched: dict[NodeId, _Progress], nodes: Iterable[NodeId]) -> None:
    """Look again at these nodes."""
    looked = 0
    for node in list(nodes):
        progress = watched.get(node)
        while progress and progress.lacks:
            first = progress.lacks[0]
            percent = views.percent(services, node, first) or 0
            progress.part_bytes = first.size * percent // 100
            if percent < 100:
                break
            progress.lacks.popleft()
            progress.files += 1
            progress.bytes += first.size
            progress.part_bytes = 0
            looked += 1
            if looked % ENTRIES_PER_TURN == 0:
                await asyncio.sleep(0)


def _answer(services: Services, asked: bodies.Wait, watched: dict[NodeId, _Progress]) -> nouns.Waited:
    members = views.members_now(services)
    linked = views.linked_members(services) | {services.node}
    nodes = [
        nouns.NodeProgress(str(node), views.label(members, node), node in linked, one.files, one.files_wanted, one.bytes + one.part_bytes, one.bytes_wanted)
        for node, one in watched.items()
    ]
    behind = [node for node, one in watched.items() if one.lacks]
    holders = len(watched) - len(behind)
    needed = needed_nodes(asked.nodes, len(watched))
    state = "pending"
    if holders >= needed:
        state = "done"
    elif asked.nodes == "all" and linked.isdisjoint(behind):
        state = "linked"
    return nouns.Waited(state, nodes, holders, needed)


def needed_nodes(asked: str, wanting: int) -> int:
    """How many of ``wanting`` nodes must hold it; InputError if there are not so many."""
    if asked == "all":
        return wanting
    if asked.endswith("%"):
        return -(-wanting * int(asked[:-1]) // 100)
    if int(asked) > wanting:
        raise InputError(f"nodes: {plural(int(asked), 'node')} can never hold it, it is wanted by {wanting}", hint="replicad peer list", code="too-many-nodes")
    return int(asked)
