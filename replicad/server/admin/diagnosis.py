"""What needs a person: the problems of ``status`` and the findings of ``doctor``, from one set of rules.

A trouble makes the node "degraded"; the doctor also says what is well, and warns of what is not wrong yet, such as the network's private key still lying on a node.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime

from replicad.errors import ConflictError
from replicad.model.ids import Stamp
from replicad.model.members import Member
from replicad.model.words import plural
from replicad.protocol.clock import check_may_author
from replicad.protocol.gossip.alarms import Alarm
from replicad.protocol.gossip.neighbours import is_full_mesh
from replicad.server.admin import nouns, views
from replicad.server.admin.services import Services

SKEW_WARN_MS = 2_000
"""protocol.md section 3: warn at 2 s against peers."""
LIFE_WARN_PART = 1 / 6
"""Of a grant's life: half of the time in which it should have been renewed is over."""
UNREACHABLE_SHOWN_MAX = 20
CERTIFICATE_WARN_S = 14 * 86_400
"""Automatic renewal happens 30 days before the end (of 90): half of that is over. Of certificates that live six days it is a false alarm: a guess."""
DAMAGED_SHOWN_MAX = 5
MIB = 1 << 20


async def troubles(services: Services) -> list[nouns.Trouble]:
    """Everything that makes this node degraded."""
    disk, content = await _disk(services), await _content(services)
    return [
        *_catalog(services),
        *_membership(services),
        *_keys(services),
        *disk,
        *content,
        *_certificate(services),
        *_clock(services),
        *_peers(services),
        *_alarms(services),
    ]


async def findings(services: Services) -> list[nouns.Finding]:
    """One line for each thing that was looked at."""
    found = [_network_key(services), _scrub(services)]
    looked = {
        "catalog": _catalog(services),
        "membership": _membership(services),
        "keys": _keys(services),
        "certificate": _certificate(services),
        "disk": await _disk(services),
        "content": await _content(services),
        "clock": _clock(services),
        "peers": _peers(services),
        "heads": _alarms(services),
    }
    well = {
        "catalog": "its file is in its place, and nothing of it is known to be damaged",
        "membership": "this node is a member of its network",
        "keys": "no key is used twice",
        "disk": "its directories are in reach, and there is room",
        "certificate": "the doors for clients and for people have certificates that will last, or need none",
        "content": "no file on this disk is known to be damaged",
        "clock": "no difference beyond 2 s from any peer",
        "peers": "every member is linked",
        "heads": "no member lags, stands still, went back or has a full disk",
    }
    for check, wrong in looked.items():
        found += [nouns.Finding(check, "failed", one.message, one.hint) for one in wrong] or [nouns.Finding(check, "ok", well[check])]
    return [*found, *_unreachable_pairs(services)]


def _network_key(services: Services) -> nouns.Finding:
    place = services.facts.network_key
    if place.exists():
        message = f"the network's private key lies on this node ({place}); whoever steals the node owns the network"
        return nouns.Finding("network key", "warning", message, "replicad key export --move FILE, and keep FILE offline")
    return nouns.Finding("network key", "ok", "the network's private key is not on this node")


def _catalog(services: Services) -> Iterator[nouns.Trouble]:
    if (fault := services.catalog.fault) is not None:
        yield nouns.Trouble(fault.error_code, fault.message, fault.hint)


def _membership(services: Services) -> Iterator[nouns.Trouble]:
    if services.node not in views.members_now(services):
        yield nouns.Trouble(
            "not-a-member", "this node holds no grant that is in force: it gets and gives nothing", "replicad peer add TOKEN", str(services.node)
        )

    for member in views.members_now(services).values():
        if member.until is not None and member.life_left(services.clock_ms()) < LIFE_WARN_PART:
            words = f"the membership of {member.name} ends at {nouns.date(member.until.ms)}, and the admin that gave it has not renewed it"
            yield nouns.Trouble("expires", words, f"replicad peer set {member.name} --life 90d", str(member.id))


def _keys(services: Services) -> Iterator[nouns.Trouble]:
    """Keys that two processes sign with: ours by a clone or a thief, anybody's by equivocation."""
    own, replica = str(services.node), services.catalog.replica
    if shares := services.catalog.signed_elsewhere():
        words = f"another process signs with this node's key (in {', '.join(share or 'the network' for share in shares)}): its disk was cloned, or the key is stolen"
        yield nouns.Trouble(
            "key-in-use", words, f"end the copy, or on an admin's node: replicad peer revoke {views.label(views.members_now(services), services.node)}", own
        )
    at = Stamp.of(services.clock_ms())
    for member in views.members_now(services).values():
        for fork in replica.trust.forks(member.id, at):
            words = f"{member.name} signed different records at place {fork.seq} in {fork.share or 'the network'}; what follows is void until an admin decides"
            yield nouns.Trouble("equivocation", words, f"replicad peer show {member.name}; replicad peer revoke {member.name}", str(member.id))


async def _disk(services: Services) -> list[nouns.Trouble]:
    """Out of reach, no room, or not for all that is to be fetched. What is half fetched has its room already."""
    if faults := services.store.places.faults():
        hint = "put it back (mount, chmod, chown), then restart the daemon, which makes what is gone for good anew and fetches its files again"
        return [nouns.Trouble("storage", "; ".join(faults), hint)]
    free, usage = services.store.free_bytes(), await services.catalog.usage()
    bounds = f"on the disk of {services.facts.data} (storage.reserve and storage.quota respected)"
    hint = "replicad store usage; make room, and it goes on by itself"
    if services.catalog.full:
        words = f"there is no room for the catalog on the disk of {services.facts.data}: news of the other nodes is not taken, nothing can be published and no files are fetched until there is"
        return [nouns.Trouble("disk-full", words, hint)]
    if free <= 0:
        return [nouns.Trouble("disk-full", f"there is no room {bounds}: nothing is fetched until there is", hint)]
    lacking = usage.wanted_bytes - sum(await services.store.partial_sizes()) - free
    if lacking > 0:
        words = f"{plural(usage.wanted, 'file')}, {usage.wanted_bytes / MIB:.1f} MiB, to be fetched, and {free / MIB:.1f} MiB are free {bounds}: fetching pauses until there are {lacking / MIB:.1f} MiB more"
        return [nouns.Trouble("disk-full", words, hint)]
    return []


async def _content(services: Services) -> list[nouns.Trouble]:
    """What was found damaged here and is not whole again."""
    found = await services.catalog.damaged()
    if not found:
        return []
    named = [(one, "/".join(await services.catalog.name_of(one.content) or ()) or str(one.content)) for one in found[:DAMAGED_SHOWN_MAX]]
    details, more = {one.detail for one in found}, ", ..." if len(found) > len(named) else ""
    if len(details) == 1:
        listed = ", ".join(name for _, name in named) + f"{more} ({details.pop()})"
    else:
        listed = ", ".join(f"{name} ({one.detail})" for one, name in named) + more
    kept = ", kept aside" if any(one.content in services.store.aside for one in found) else ""
    words = f"{plural(len(found), 'file')} damaged on this disk: {listed}; not served{kept}, fetched again as soon as a peer has it"
    return [nouns.Trouble("damaged", words, f"replicad show {named[0][1]}" if "/" in named[0][1] else "replicad store usage")]


def _scrub(services: Services) -> nouns.Finding:
    late_s = services.scrub.late_s
    if late_s:
        return nouns.Finding("scrub", "warning", f"reading all files again is {late_s / 86_400:.1f} days late", "raise rate in [scrub]")
    return nouns.Finding("scrub", "ok", "all files are read again in time")


def _certificate(services: Services) -> Iterator[nouns.Trouble]:
    """Of the doors for clients and for people."""
    for door, following in services.certificates.items():
        if following.problem:
            words = f"{door}: the old TLS certificate stays in use: {following.problem}"
            yield nouns.Trouble("certificate", words, "mend the files; they are looked at every few seconds")
        elif (left_s := following.ends.timestamp() - services.clock_ms() / 1000) < CERTIFICATE_WARN_S:
            ends = nouns.date(int(following.ends.timestamp() * 1000))
            words = f"{door}: the TLS certificate {following.certificate} {'ends' if left_s > 0 else 'ended'} at {ends}"
            yield nouns.Trouble("certificate", words, "replace the files; no restart is needed")


def _clock(services: Services) -> Iterator[nouns.Trouble]:
    members = views.members_now(services)
    try:
        check_may_author(services.dialing.skews().values())
    except ConflictError as refusal:
        yield nouns.Trouble(refusal.error_code, refusal.message, refusal.hint, str(services.node))
    for node, skew_ms in services.dialing.skews().items():
        if abs(skew_ms) >= SKEW_WARN_MS and node in members:
            words = f"the clock of {members[node].name} is {abs(skew_ms) / 1000:.1f} s {'ahead of' if skew_ms > 0 else 'behind'} this node's"
            yield nouns.Trouble("clock-skew", words, "timedatectl on both", str(node))


def _peers(services: Services) -> Iterator[nouns.Trouble]:
    linked = views.linked_members(services) | {services.node}
    for member in views.members_now(services).values():
        if member.id not in linked:
            why = services.dialing.trouble(member.id)
            yield nouns.Trouble("peer-offline", f"{member.name}: {why or 'offline'}", f"replicad peer check {member.name}", str(member.id))


def _alarms(services: Services) -> Iterator[nouns.Trouble]:
    """What the heads of the others show."""
    now_ms = services.monotonic_ms()
    for member in sorted(views.members_now(services).values(), key=lambda one: (one.name, one.id)):
        if member.id != services.node:
            yield from (_alarm(services, member, alarm) for alarm in services.standing.alarms(member.id, now_ms))


def _alarm(services: Services, member: Member, alarm: Alarm) -> nouns.Trouble:
    since = datetime.fromtimestamp((services.clock_ms() - alarm.for_ms) / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    where = f"share {alarm.share}" if alarm.share else "the network's own records"
    hint = f"replicad peer check {member.name}"
    match alarm.kind:
        case "lags":
            lag = services.standing.lag(member.id)
            words, hint = f"{member.name} lags by {plural(lag.files, 'file')}, {lag.bytes / (1 << 20):.1f} MiB, since {since}", "replicad matrix --incomplete"
        case "frozen":
            words = f"{member.name} is there but has taken nothing new of {where} since {since}"
        case "withholds":
            words = f"{member.name} claims to have more of {where} than it passes on, since {since}"
        case "disk-full":
            words = f"{member.name} has no room on its disk: it fetches nothing until there is, and perhaps takes no news"
            hint = f"replicad doctor, on {member.name}"
        case "went-back":
            words = f"{member.name} went back to an earlier state of {where} at {since}: a restored backup, or its disk lost something"
            hint = f"replicad doctor, on {member.name}"
    return nouns.Trouble(f"peer-{alarm.kind}", words, hint, str(member.id))


def _unreachable_pairs(services: Services) -> Iterator[nouns.Finding]:
    """Two members that have no link with each other although both are there: content goes between them by way of a third."""
    members = views.members_now(services)
    there = sorted(views.linked_members(services), key=lambda node: views.label(members, node))
    links = {node: set(presence.links) for node in there if (presence := services.standing.presence(node))}
    links[services.node] = {link.node for link in services.links.all()}
    if not is_full_mesh(members):
        return
    apart = [(one, other) for one, other in itertools.combinations(links, 2) if other not in links[one] and one not in links[other]]
    for one, other in apart[:UNREACHABLE_SHOWN_MAX]:
        between = [node for node in links if one in links[node] and other in links[node]]
        words = f"{views.label(members, one)} and {views.label(members, other)} have no link with each other"
        if between:
            yield nouns.Finding("reachability", "warning", f"{words}; {views.label(members, between[0])} stands between them")
        else:
            yield nouns.Finding("reachability", "failed", f"{words} and no member stands between them", "open the peer door of one of them to the other")
    if not apart:
        yield nouns.Finding("reachability", "ok", "every two members that are there have a link")
