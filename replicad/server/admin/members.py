"""Members: who belongs to the network, how they are, and letting them in and out."""

from __future__ import annotations

from typing import Any, cast

from msgspec import UNSET, Struct

from replicad.crypto.keys import SigningKey
from replicad.errors import ConfigurationError, ConflictError, InputError, NotFoundError
from replicad.model.ids import NodeId, Stamp, check_share_name, check_stage_name
from replicad.server.admin import bodies, nouns, paging, queries, views
from replicad.server.admin.routes import Call
from replicad.services.membership import Wishes

BLAMES_SHOWN_MAX = 20
LINK_STEP = "link"


async def list_(call: Call[queries.PageQuery]) -> nouns.Peers:
    """GET /members: the other members, and who waits for approval."""
    services = call.services
    usage = await services.catalog.usage()
    linked = views.linked_members(services)
    known = views.members_now(services).values()
    others, following = paging.page((one for one in known if one.id != services.node), call.asked, lambda one: (one.name, str(one.id)))
    peers = [views.peer(services, member, linked=member.id in linked, total_bytes=usage.content_bytes + usage.wanted_bytes) for member in others]
    waiting = [
        nouns.Pending(id=str(one.node), name=one.name, asked=nouns.date(one.asked_ms), words=services.membership.words(one.node))
        for one in await services.membership.pending()
    ]
    return nouns.Peers(peers, waiting, following)


async def show(call: Call[bodies.Nothing]) -> nouns.PeerDetail:
    """GET /members/{id}."""
    services = call.services
    member = views.find_member(services, call.request.match_info["id"])
    members = views.members_now(services)
    usage = await services.catalog.usage()
    link = services.links.get(member.id)
    urls, _ = services.standing.address(member.id)
    blames = await services.catalog.blames(member.id)
    return nouns.PeerDetail(
        peer=views.peer(services, member, linked=member.id in views.linked_members(services), total_bytes=usage.content_bytes + usage.wanted_bytes),
        urls=list(urls),
        reachable=link.reachable if link else None,
        admitted=nouns.date(member.admitted.ms),
        admitted_by=str(member.admitted_by),
        admitted_by_name="the network key" if member.admitted_by == services.catalog.network else views.label(members, member.admitted_by),
        forks=[
            nouns.Fork(fork.share, fork.seq, [str(record) for record in await services.catalog.witnesses(fork)])
            for fork in services.catalog.replica.chains.forks(member.id)
        ],
        blames=[nouns.Blame(one.offence, one.detail, nouns.date(one.at_ms)) for one in blames[:BLAMES_SHOWN_MAX]],
    )


class Rights(Struct, frozen=True):
    """What can be changed of a member."""

    id: str
    role: str
    site: str
    shares: list[str] | None
    stages: list[str] | None
    paths: list[str] | None
    until_ms: int | None
    networks: list[str]


async def rights(call: Call[Any]) -> Rights:
    """Its state, for ETag and If-Match."""
    member = views.find_member(call.services, call.request.match_info["id"])
    shares, stages, paths = (None if one is None else sorted(one) for one in (member.shares, member.stages, member.paths))
    return Rights(str(member.id), member.role, member.site, shares, stages, paths, None if member.until is None else member.until.ms, list(member.networks))


async def invite(call: Call[bodies.Invite]) -> nouns.Invited:
    """POST /invites."""
    asked = call.asked
    wishes = _wishes(asked)
    if asked.replaces is not None and wishes:
        raise InputError(f"replaces: the new key gets the rights of {asked.replaces}, so {', '.join(sorted(wishes))} cannot be given")
    replaces = None if asked.replaces is None else views.find_member(call.services, asked.replaces).id
    token = await call.services.membership.invite(expires_s=asked.expires_s, replaces=replaces, **wishes)
    return nouns.Invited(token, nouns.date(call.services.clock_ms() + asked.expires_s * 1000))


async def join(call: Call[bodies.Join]) -> nouns.Joined:
    """POST /members/join: answers when everything is synchronised, or (without a token) after a few seconds with ``pending``; then it is to be asked again."""
    asked, membership = call.asked, call.services.membership
    if asked.token is not None and asked.url is None and asked.key is None:
        await membership.join(asked.token, merge=asked.merge)
        return nouns.Joined("member", str(call.services.catalog.network), "")
    if asked.token is None and asked.url is not None and asked.key is not None:
        key = NodeId.parse(asked.key)
        state = await membership.request(asked.url, key)
        return nouns.Joined(state, str(call.services.catalog.network), membership.words(key))
    raise InputError("give either token, or url and key")


async def approve(call: Call[bodies.MemberChange]) -> nouns.Changed:
    """POST /members/{id}/approve: of a node that asked."""
    asked, services = call.asked, call.services
    node = await _pending(call, call.request.match_info["id"])
    await services.membership.approve(node, network_key=_key(asked.network_key), **_wishes(asked))
    return nouns.Changed(str(node), views.label(views.members_now(services), node))


async def change(call: Call[bodies.MemberChange]) -> nouns.Changed:
    """PATCH /members/{id}."""
    asked, services = call.asked, call.services
    member = views.find_member(services, call.request.match_info["id"])
    await services.membership.set(member.id, network_key=_key(asked.network_key), **_wishes(asked))
    return nouns.Changed(str(member.id), member.name)


async def revoke(call: Call[bodies.Revoke]) -> nouns.Revoked:
    """POST /members/{id}/revoke: its key is stolen. Former members, too; a name means the present member first."""
    asked, services = call.asked, call.services
    named, given = services.catalog.replica.trust.named(), call.request.match_info["id"]
    present = {member: named[member] for member in views.members_now(services)}
    node = views.find_node(present if given in present.values() else named, given)
    since = None if asked.since is None else Stamp.of(max(0, int(asked.since.timestamp() * 1000)))
    voided = await services.membership.revoke(node, since=since, dry_run=asked.dry_run, network_key=_key(asked.network_key))
    return nouns.Revoked(str(node), named[node], voided.records, voided.names)


async def remove(call: Call[bodies.Nothing]) -> nouns.Changed:
    """DELETE /members/{id}: it leaves in good standing, what it published counts."""
    member = views.find_member(call.services, call.request.match_info["id"])
    await call.services.membership.remove(member.id)
    return nouns.Changed(str(member.id), member.name)


async def check(call: Call[bodies.Nothing]) -> nouns.Checked:
    """POST /members/{id}/check: tries to reach the member, step by step. That there is no link at this moment is no failure if the rest goes well."""
    member = views.find_member(call.services, call.request.match_info["id"])
    steps = [nouns.Step(one.step, one.ok, one.detail) for one in await call.services.membership.check(member.id)]
    return nouns.Checked(str(member.id), member.name, not any(step.ok is False and step.step != LINK_STEP for step in steps), steps)


def _wishes(asked: bodies.Rights) -> Wishes:
    """What is asked for, without what is left as it is. InputError for a name that cannot be one."""
    for share in asked.shares or ():
        check_share_name(share)
    for stage in asked.stages or ():
        check_stage_name(stage)
    given = {name: value for name in Wishes.__annotations__ if (value := getattr(asked, name)) is not UNSET}
    return cast("Wishes", given)


def _key(text: str | None) -> SigningKey | None:
    try:
        return None if text is None else SigningKey.read(text.encode(), origin="network_key")
    except ConfigurationError as error:
        raise InputError(error.message) from None


async def _pending(call: Call[bodies.MemberChange], named: str) -> NodeId:
    """Who asked to join and is meant: by name, or by an unambiguous beginning of its id."""
    waiting = await call.services.membership.pending()
    plain = named.replace("-", "").upper()
    found = [one for one in waiting if one.name == named] or [one for one in waiting if plain and str(one.node).replace("-", "").startswith(plain)]
    if not found:
        raise NotFoundError(f"no node called {named[:80]!r} asked to join", hint="replicad peer list", code="no-such-node")
    if len(found) > 1:
        raise ConflictError(f"{named!r} could be {', '.join(f'{one.name} ({one.node.short}...)' for one in found)}", code="ambiguous-node")
    return found[0].node
