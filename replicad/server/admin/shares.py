"""Shares. A share is nothing but its newest policy, so creating and changing one is authoring that record."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from replicad.errors import ConflictError, InputError
from replicad.model.ids import NETWORK_SHARE, check_share_name, check_stage_name
from replicad.model.records import DEFAULT_STAGES, Policy
from replicad.server.admin import bodies, nouns, views
from replicad.server.admin.routes import Call

STAGE_PAGE = 1000


async def list_(call: Call[bodies.Nothing]) -> nouns.Shares:
    """GET /shares."""
    return nouns.Shares([views.share(found) for found in call.services.catalog.replica.trust.shares().values()])


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
    policy = Policy(name=name, public=asked.public, immutable=asked.immutable, stages=stages)
    await call.services.catalog.author(NETWORK_SHARE, [policy])
    return nouns.ShareAnswer(views.share(views.find_share(call.services, name)))


async def change(call: Call[bodies.ShareChange]) -> nouns.ShareAnswer:
    """PATCH /shares/{share}. A stage that has files cannot be left out: ConflictError."""
    asked, found = call.asked, views.find_share(call.services, call.share)
    stages = found.stages if asked.stages is UNSET else _checked(asked.stages)
    gone = [stage for stage in found.stages if stage not in stages]
    if gone:
        await _check_empty(call, found.name, gone)
    public = found.public if asked.public is UNSET else asked.public
    if (public, stages) != (found.public, found.stages):
        await call.services.catalog.author(NETWORK_SHARE, [Policy(name=found.name, public=public, immutable=found.immutable, stages=stages)])
    return nouns.ShareAnswer(views.share(views.find_share(call.services, found.name)))


async def _check_empty(call: Call[bodies.ShareChange], share: str, gone: Sequence[str]) -> None:
    """Reads the share's names page by page: rare, and right is more important than fast."""
    after: tuple[str, str] | None = None
    while page := await call.services.catalog.entries(share, after=after, limit=STAGE_PAGE, all_stages=True):
        for listed in page:
            if listed.stage in gone:
                raise ConflictError(f"stage {listed.stage!r} of {share} still has files, such as {listed.path!r}", code="stage-in-use")
        after = (page[-1].share, page[-1].key)


def _checked(stages: Sequence[str]) -> tuple[str, ...]:
    if len(set(stages)) != len(stages):
        raise InputError(f"stages: {', '.join(stages)} names one twice")
    return tuple(check_stage_name(stage) for stage in stages)
