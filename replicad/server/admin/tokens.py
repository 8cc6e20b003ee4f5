"""API tokens."""

from __future__ import annotations

from replicad.catalog import Token
from replicad.model.ids import check_share_name
from replicad.model.paths import check
from replicad.server.admin import bodies, nouns, paging, queries
from replicad.server.admin.routes import Call


async def list_(call: Call[queries.PageQuery]) -> nouns.Tokens:
    """GET /tokens."""
    found, following = paging.page(await call.services.catalog.tokens(), call.asked, lambda token: (token.created_ms, token.id))
    return nouns.Tokens([_noun(token, call.services.clock_ms()) for token in found], following)


async def create(call: Call[bodies.NewToken]) -> nouns.MadeToken:
    """POST /tokens. The shares need not exist yet. ConflictError("token-exists")."""
    asked = call.asked
    for share in asked.shares or ():
        check_share_name(share)
    path = asked.path.rstrip("/")
    token, secret = await call.services.tokens.create(
        name=asked.name, role=asked.role, shares=asked.shares, path=check(path) if path else "", expires_s=asked.expires_s
    )
    return nouns.MadeToken(_noun(token, call.services.clock_ms()), secret)


async def revoke(call: Call[bodies.Nothing]) -> nouns.TokenAnswer:
    """DELETE /tokens/{token}: by name or id; it is refused from now on. NotFoundError."""
    return nouns.TokenAnswer(_noun(await call.services.catalog.revoke_token(call.request.match_info["token"]), call.services.clock_ms()))


def _noun(token: Token, now_ms: int) -> nouns.Token:
    return nouns.Token(
        id=token.id,
        name=token.name,
        role=token.role,
        shares=None if token.shares is None else list(token.shares),
        path=token.path,
        created=nouns.date(token.created_ms),
        expires=None if token.expires_ms is None else nouns.date(token.expires_ms),
        expired=token.expires_ms is not None and now_ms >= token.expires_ms,
        used=None if token.used_ms is None else nouns.date(token.used_ms),
    )
