"""Shares. A share is nothing but its newest policy, so creating and changing one is authoring that record."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote, urlencode

from msgspec import UNSET, structs

from replicad.crypto import passwords, prestage
from replicad.crypto.hashing import sha256
from replicad.errors import ConflictError, InputError, NotAllowedError, NotFoundError
from replicad.model import redirects
from replicad.model.access import OPEN, TOKENS_MAX, USERS_MAX, Access, BearerToken, check_name, check_network
from replicad.model.ids import NETWORK_SHARE, Stamp, check_share_name, check_stage_name
from replicad.model.members import Share
from replicad.model.paths import check, key
from replicad.model.records import DEFAULT_STAGES, Policy, Role
from replicad.model.words import plural
from replicad.server.admin import bodies, nouns, paging, queries, views
from replicad.server.admin.routes import Call
from replicad.server.admin.services import Services

STAGE_PAGE = 1000
NAMES_COUNTED_MAX = 10_000_000
"""Ten times what the catalog is made for."""
TOKEN_PREFIX = "rshare_"  # noqa: S105 - so that people and scanners for leaked secrets recognise one


async def list_(call: Call[queries.PageQuery]) -> nouns.Shares:
    """GET /shares: those that the caller may see."""
    known = call.services.catalog.replica.trust.shares().values()
    found, following = paging.page((one for one in known if call.caller.reaches(one.name)), call.asked, lambda one: (one.name, ""))
    return nouns.Shares([views.share(one) for one in found], following)


async def show(call: Call[bodies.Nothing]) -> nouns.ShareAnswer:
    """GET /shares/{share}."""
    return nouns.ShareAnswer(views.share(views.find_share(call.services, call.share)))


async def create(call: Call[bodies.NewShare]) -> nouns.ShareAnswer:
    """POST /shares. ConflictError if it exists, NotAllowedError if this node may not."""
    asked = call.asked
    name = check_share_name(asked.name)
    if name in call.services.catalog.replica.trust.shares():
        raise ConflictError(f"the share {name!r} exists already", hint=f"replicad share set {name}", code="share-exists")
    stages = _checked(asked.stages) if asked.stages is not None else DEFAULT_STAGES
    root = _checked_root(asked.root, asked.layout)
    policy = Policy(
        name, asked.public, asked.immutable, stages, layout=asked.layout or UNSET, root=root or UNSET, checksums=_algorithms(asked.checksums) or UNSET
    )
    await call.services.catalog.author(NETWORK_SHARE, [policy])
    return nouns.ShareAnswer(views.share(views.find_share(call.services, name)))


async def change(call: Call[bodies.ShareChange]) -> nouns.ShareAnswer:
    """PATCH /shares/{share}. A stage that has files cannot be left out: ConflictError."""
    asked = call.asked
    verifiers = {
        check_name(name): None if password is None else await asyncio.to_thread(passwords.verifier, password) for name, password in asked.passwords.items()
    }
    async with call.services.ingest.turn(call.share):
        found = views.find_share(call.services, call.share)
        stages = found.stages if asked.stages is UNSET else _checked(asked.stages)
        gone = [stage for stage in found.stages if stage not in stages]
        if gone:
            await _check_empty(call, found.name, gone)
        layout = found.layout if asked.layout is UNSET else asked.layout
        newer = replace(
            found,
            public=found.public if asked.public is UNSET else asked.public,
            stages=stages,
            layout=layout,
            root=_checked_root(asked.root, layout) if asked.root is not UNSET else found.root if layout else "",
            checksums=found.checksums if asked.checksums is UNSET else _algorithms(asked.checksums),
            access=_changed_access(found, asked, verifiers),
            redirects=found.redirects if asked.redirects is UNSET else redirects.canonical(asked.redirects),
        )
        return await _author(call.services, found, newer)


async def remove(call: Call[queries.RemoveShareQuery]) -> nouns.RemovedShare:
    """DELETE /shares/{share}: it ends on all nodes, and with it whatever it has. ConflictError unless it has no names, or as many as ``expect`` says."""
    services, asked = call.services, call.asked
    async with services.ingest.turn(call.share):
        found = views.find_share(services, call.share)
        names = await services.catalog.count_names(found.name, NAMES_COUNTED_MAX)
        fits = asked.expect == names or (asked.expect is None and (asked.dry_run or not names))
        if not fits:
            said = f"not {asked.expect}" if asked.expect is not None else "which would go with it"
            raise ConflictError(
                f"{found.name} has {plural(names, 'name')}, {said}; it was not removed", hint=f"if that is right: --expect {names}", code="not-as-expected"
            )
        if not asked.dry_run:
            policy = Policy(name=found.name, public=found.public, immutable=found.immutable, stages=found.stages, removed=True)
            await services.catalog.author(NETWORK_SHARE, [policy])
    return nouns.RemovedShare(found.name, names, not asked.dry_run)


def _changed_access(found: Share, asked: bodies.ShareChange, verifiers: Mapping[str, str | None]) -> Access:
    access = found.access
    users: dict[str, str] = dict(access.users)
    for name, verifier in verifiers.items():
        if verifier is not None:
            users[name] = verifier
        elif users.pop(name, None) is None:
            raise NotFoundError(f"{found.name} has no user {name!r}", hint=f"replicad share show {found.name}", code="no-such-user")
    if len(users) > USERS_MAX:
        raise InputError(
            f"passwords: a share has at most {USERS_MAX} users", hint="a bearer token or signed URLs may serve better: replicad share token create"
        )
    return Access(
        users=users,
        tokens=access.tokens,
        networks=access.networks if asked.networks is UNSET else tuple(dict.fromkeys(str(check_network(text)) for text in asked.networks)),
        prestage=access.prestage if asked.prestage_key is UNSET else asked.prestage_key and prestage.read_key(asked.prestage_key),
    )


async def _author(services: Services, found: Share, newer: Share) -> nouns.ShareAnswer:
    """The policy that makes ``found`` what ``newer`` is, if that is anything new."""
    if newer != found:
        policy = Policy(
            name=newer.name,
            public=newer.public,
            immutable=newer.immutable,
            stages=newer.stages,
            access=UNSET if newer.access == OPEN else newer.access,
            layout=newer.layout or UNSET,
            root=newer.root or UNSET,
            checksums=newer.checksums or UNSET,
            redirects=dict(newer.redirects) or UNSET,
        )
        await services.catalog.author(NETWORK_SHARE, [policy])
    return nouns.ShareAnswer(views.share(views.find_share(services, found.name)))


async def create_token(call: Call[bodies.NewShareToken]) -> nouns.MadeShareToken:
    """POST /shares/{share}/tokens. ConflictError if there is one of that name."""
    services, name = call.services, check_name(call.asked.name)
    async with services.ingest.turn(call.share):
        found = views.find_share(services, call.share)
        if name in found.access.tokens:
            raise ConflictError(f"{found.name} has a token {name!r} already", hint=f"replicad share token revoke {found.name} {name}", code="token-exists")
        if len(found.access.tokens) >= TOKENS_MAX:
            raise InputError(f"a share has at most {TOKENS_MAX} tokens", hint=f"replicad share show {found.name}")
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        until = None if call.asked.expires_s is None else Stamp.of(services.clock_ms() + call.asked.expires_s * 1000)
        tokens = {**found.access.tokens, name: BearerToken(sha256(token.encode()), until)}
        await _author(services, found, replace(found, access=structs.replace(found.access, tokens=tokens)))
    return nouns.MadeShareToken(token, name, nouns.date(until.ms) if until else None)


async def revoke_token(call: Call[bodies.Nothing]) -> nouns.ShareAnswer:
    """DELETE /shares/{share}/tokens/{name}. NotFoundError."""
    services, name = call.services, call.request.match_info["name"]
    async with services.ingest.turn(call.share):
        found = views.find_share(services, call.share)
        if name not in found.access.tokens:
            raise NotFoundError(f"{found.name} has no token {name!r}", hint=f"replicad share show {found.name}", code="no-such-token")
        tokens = {label: token for label, token in found.access.tokens.items() if label != name}
        return await _author(services, found, replace(found, access=structs.replace(found.access, tokens=tokens)))


async def sign_url(call: Call[bodies.SignUrl]) -> nouns.SignedUrl:
    """POST /shares/{share}/urls: this node's word that whoever shows the URL may download that file. NotFoundError; NotAllowedError for a mirror, whose word would count nowhere."""
    services, found, path = call.services, views.find_share(call.services, call.share), check(call.asked.path)
    until_s = services.clock_ms() // 1000 + call.asked.expires_s
    if await services.catalog.visible(found.name, key(path)) is None:
        raise NotFoundError(f"this node shows no {path!r} in {found.name}", hint=f"replicad ls {found.name}", code="no-such-file")
    member = services.catalog.replica.trust.members(services.clock_ms()).get(services.node)
    if member is None or member.role is Role.MIRROR:
        raise NotAllowedError("this node is a mirror: a URL that it signs counts nowhere", hint="sign it on a publisher or admin")
    parameters = services.sign_url(found.name, key(path), until_s)
    return nouns.SignedUrl(f"{services.facts.downloads_url}/{found.name}/{quote(path)}?{urlencode(parameters)}", nouns.date(until_s * 1000))


async def _check_empty(call: Call[bodies.ShareChange], share: str, gone: Sequence[str]) -> None:
    """Reads the share's names page by page: rare, and right is more important than fast."""
    after: tuple[str, str] | None = None
    while page := await call.services.catalog.entries(share, after=after, limit=STAGE_PAGE, all_stages=True):
        for listed in page:
            if listed.stage in gone:
                raise ConflictError(f"stage {listed.stage!r} of {share} still has files, such as {listed.path!r}", code="stage-in-use")
        after = (page[-1].share, page[-1].key)


def _algorithms(asked: Sequence[str]) -> tuple[str, ...]:
    """Each once, in an order of their own: the same wishes make the same policy."""
    return tuple(sorted(set(asked)))


def _checked(stages: Sequence[str]) -> tuple[str, ...]:
    if len(set(stages)) != len(stages):
        raise InputError(f"stages: {', '.join(stages)} names one twice")
    return tuple(check_stage_name(stage) for stage in stages)


def _checked_root(root: str, layout: str) -> str:
    """Slashes around it do not count. InputError."""
    root = root.strip("/")
    if root and not layout:
        raise InputError("root: only the tree of a layout has one", hint="--layout munki")
    return check(root) if root else ""
