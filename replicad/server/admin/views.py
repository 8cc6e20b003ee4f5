"""From the model's values to the API's nouns, and who of the members is there."""

from __future__ import annotations

from collections.abc import Mapping

from replicad.errors import ConflictError, InputError, NotFoundError
from replicad.model.entries import Listed
from replicad.model.ids import Digest, NodeId
from replicad.model.members import Member, Share
from replicad.server.admin import nouns
from replicad.server.admin.services import Services

PREFIX_CHARS_MIN = 4

Members = Mapping[NodeId, Member]


def members_now(services: Services) -> Members:
    """Everybody with a grant in force, this node included."""
    return services.catalog.replica.trust.members(services.clock_ms())


def label(members: Members, node: NodeId) -> str:
    """What people call the node: its name, or the beginning of its id when it is no member (any more)."""
    member = members.get(node)
    return member.name if member else node.short


def find_member(services: Services, named: str) -> Member:
    """The member that a person means. NotFoundError, ConflictError."""
    members = members_now(services)
    return members[find_node({member.id: member.name for member in members.values()}, named)]


def find_other(services: Services, named: str) -> Member:
    """The same, of the others: InputError if it is this node."""
    member = find_member(services, named)
    if member.id == services.node:
        raise InputError(f"{member.name} is this node itself: name another member", hint="replicad peer list")
    return member


def find_node(names: Mapping[NodeId, str], named: str) -> NodeId:
    """Which of these nodes a person means: by name, or by an unambiguous beginning of its id (dashes and case do not matter). NotFoundError, ConflictError."""
    by_name = [node for node, name in names.items() if name == named]
    plain = named.replace("-", "").upper()
    found = by_name or [node for node in names if len(plain) >= PREFIX_CHARS_MIN and str(node).replace("-", "").startswith(plain)]
    if not found:
        raise NotFoundError(f"no member is called {named[:80]!r}, and no id begins with it", hint="replicad peer list", code="no-such-node")
    if len(found) > 1:
        listed = ", ".join(f"{names[node]} ({node.short}...)" for node in found)
        raise ConflictError(f"{named!r} could be {listed}", hint="name it by the beginning of its id", code="ambiguous-node")
    return found[0]


def linked_members(services: Services) -> set[NodeId]:
    """The members that are there: linked with this node, or by way of others.

    "Linked" is a head younger than three intervals (protocol.md section 5); a node that died is noticed sooner, because nobody who is there says any more that it has a link with it.
    """
    now_ms = services.monotonic_ms()
    found = {link.node for link in services.links.all()}
    waiting = list(found)
    while waiting:
        presence = services.standing.presence(waiting.pop())
        for node in presence.links if presence else ():
            if node not in found and services.standing.linked(node, now_ms):
                found.add(node)
                waiting.append(node)
    return found


def entry(listed: Listed, members: Members, checksums: Mapping[Digest, Mapping[str, bytes]]) -> nouns.Entry:
    """A name as the API shows it."""
    return nouns.Entry(
        share=listed.share,
        path=listed.path,
        stage=listed.stage,
        size=listed.size,
        sha256=str(listed.content),
        published=nouns.date(listed.hlc.ms),
        publisher=listed.publisher,
        origin=label(members, listed.origin),
        available=listed.available,
        siblings=listed.siblings,
        record=str(listed.record),
        taken_down=listed.taken_down,
        checksums={algorithm: digest.hex() for algorithm, digest in sorted(checksums.get(listed.content, {}).items())},
    )


def share(found: Share) -> nouns.Share:
    """A share as the API shows it."""
    access = found.access
    return nouns.Share(
        name=found.name,
        public=found.public,
        immutable=found.immutable,
        stages=list(found.stages),
        created=nouns.date(found.created.ms),
        layout=found.layout,
        root=found.root,
        checksums=list(found.checksums),
        users=sorted(access.users),
        tokens=[nouns.ShareToken(name, nouns.date(token.until.ms) if token.until else None) for name, token in sorted(access.tokens.items())],
        networks=list(access.networks),
        prestage=bool(access.prestage),
        redirects=dict(found.redirects),
    )


def find_share(services: Services, name: str) -> Share:
    """The share of that name; NotFoundError lists those that exist."""
    shares = services.catalog.replica.trust.shares()
    if name not in shares:
        there = f"there are {', '.join(shares)}" if shares else "there is none yet"
        raise NotFoundError(
            f"no share is called {name!r}; {there}", hint="replicad share list" if shares else "replicad share create NAME", code="no-such-share"
        )
    return shares[name]


def percent(services: Services, node: NodeId, listed: Listed) -> int | None:
    """How much of the entry's content a node that wants it holds; None when it has not told."""
    if node != services.node:
        return services.standing.percent(node, listed)
    return 100 if services.catalog.is_held(listed.content) else services.fetch.percent(listed.content)


def peer(services: Services, member: Member, *, linked: bool, total_bytes: int) -> nouns.Peer:
    """Another member as the API shows it. ``total_bytes`` is what this node knows of contents, the base of the member's percentage."""
    link = services.links.get(member.id)
    return nouns.Peer(
        id=str(member.id),
        name=member.name,
        role=member.role,
        site=member.site,
        shares=None if member.shares is None else sorted(member.shares),
        stages=None if member.stages is None else sorted(member.stages),
        paths=None if member.paths is None else sorted(member.paths),
        until=None if member.until is None else nouns.date(member.until.ms),
        linked=linked,
        since=_since(services, member.id),
        rtt_ms=None if link is None or link.rtt_s is None else round(link.rtt_s * 1000, 3),
        percent=_whole_percent(services, member.id, total_bytes),
        lag=_lag(services, member.id),
        limit_bytes_s=services.limits.peer_rate(member.id),
        paused=services.limits.is_paused(member.id),
        networks=list(member.networks),
    )


def _since(services: Services, node: NodeId) -> str | None:
    """Linked directly: since when. Otherwise when it was last heard of: its newest head, or the end of the link with it. A head from before this daemon ran has only its own word for its date."""
    link = services.links.get(node)
    now_ms, started_ms = services.clock_ms(), services.facts.started_ms
    if link:
        return nouns.date(now_ms - int(link.age_s * 1000))
    parted_s, seen_ms, head = services.links.parted_s(node), services.standing.seen_ms_ago(node, services.monotonic_ms()), services.standing.head(node)
    heard_ms = [] if parted_s is None else [now_ms - int(parted_s * 1000)]
    if seen_ms is not None and head is not None:
        heard_ms.append(now_ms - seen_ms if now_ms - seen_ms >= started_ms else min(head.made_ms, started_ms))
    return nouns.date(max(heard_ms)) if heard_ms else None


def _lag(services: Services, node: NodeId) -> nouns.Lag | None:
    """What it said last; "nothing missing" only if it also has every record that this node has."""
    if services.standing.head(node) is None:
        return None
    lag = services.standing.lag(node)
    if lag.files == 0 and not _in_sync(services, node):
        return None
    return nouns.Lag(lag.files, lag.bytes, None if lag.since_ms is None else nouns.date(lag.since_ms))


def _in_sync(services: Services, node: NodeId) -> bool:
    member = members_now(services).get(node)
    shares = ["", *(name for name in services.catalog.replica.trust.shares() if member and member.has_share(name))]
    return all(services.standing.in_sync(node, name) for name in shares)


def _whole_percent(services: Services, node: NodeId, total_bytes: int) -> int | None:
    lag = _lag(services, node)
    if lag is None:
        return None
    if lag.files == 0:
        return 100
    return max(0, min(99, 100 - 100 * lag.bytes // max(1, total_bytes)))
