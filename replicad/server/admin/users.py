"""The people whom this node itself knows. Admins say who they are and what they may; each can change their own password and get a second factor."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from replicad.catalog import User
from replicad.crypto import totp
from replicad.errors import InputError, NotFoundError
from replicad.model import paths
from replicad.model.callers import AccessRole
from replicad.model.ids import check_share_name
from replicad.server.admin import bodies, nouns, paging, people, queries
from replicad.server.admin.identity import origin
from replicad.server.admin.routes import Call
from replicad.server.admin.sessions import local_user
from replicad.server.admin.trace import trace


async def list_(call: Call[queries.PageQuery]) -> nouns.Users:
    """GET /users."""
    found, following = paging.page(await call.services.catalog.users(), call.asked, lambda user: (user.name, ""))
    return nouns.Users([_noun(user) for user in found], following)


async def show(call: Call[Any]) -> nouns.UserAnswer:
    """GET /users/{user}. NotFoundError("no-such-user")."""
    return nouns.UserAnswer(_noun(await call.services.catalog.user(_name(call))))


async def add(call: Call[people.NewUser]) -> nouns.UserAnswer:
    """POST /users. The shares need not exist yet. ConflictError("user-exists")."""
    asked = call.asked
    user = await call.services.users.add(asked.name, asked.password, role=asked.role, shares=_shares(asked.shares), path=_path(asked.path))
    return nouns.UserAnswer(_noun(user))


async def change(call: Call[people.UserChange]) -> nouns.UserAnswer:
    """PATCH /users/{user}: it counts at once, also for sessions; disabling ends them. NotFoundError("no-such-user")."""
    asked = call.asked
    changed: dict[str, Any] = {} if asked.shares is UNSET else {"shares": _shares(asked.shares)}
    if asked.path is not UNSET:
        changed["path"] = paths.key(_path(asked.path))
    changed |= {name: value for name in ("role", "enabled") if (value := getattr(asked, name)) is not UNSET}
    return nouns.UserAnswer(_noun(await call.services.catalog.change_user(_name(call), lambda user: user._replace(**changed))))


async def remove(call: Call[bodies.Nothing]) -> nouns.UserAnswer:
    """DELETE /users/{user}: with all sessions. NotFoundError("no-such-user")."""
    return nouns.UserAnswer(_noun(await call.services.catalog.remove_user(_name(call))))


async def set_password(call: Call[people.NewPassword]) -> nouns.UserAnswer:
    """PUT /users/{user}/password: ends all sessions of that user. An admin gives the new one; a user, for the own account, the current one, too. NotFoundError("no-such-user"),
    UnauthorizedError("wrong-login") if the current one is wrong, BusyError("too-many-guesses").
    """
    name = await _own_or_any(call)
    if _is_own(call, name):
        if call.asked.current is None:
            raise InputError("current: the current password is needed to change the own one")
        await call.services.logins.check_password(name, call.asked.current, address=origin(call.request))
    return nouns.UserAnswer(_noun(await call.services.users.set_password(name, call.asked.password)))


async def offer_totp(call: Call[bodies.Nothing]) -> nouns.OfferedTotp:
    """POST /users/{user}/totp: the secret of a second factor for the own account, or, for admins, any. It is shown this once and counts when a code of it is confirmed. NotFoundError("no-such-user"),
    ConflictError("totp-enabled").
    """
    name = await _own_or_any(call)
    secret = await call.services.users.offer_totp(name)
    return nouns.OfferedTotp(totp.uri(secret, name=name, issuer=f"replicad {call.services.facts.name}"), totp.text(secret))


async def confirm_totp(call: Call[people.TotpCode]) -> nouns.UserAnswer:
    """PUT /users/{user}/totp: from now on the account needs the second factor that was offered last. InputError if the code is not of it. NotFoundError("no-such-user")."""
    return nouns.UserAnswer(_noun(await call.services.users.confirm_totp(await _own_or_any(call), call.asked.code)))


async def drop_totp(call: Call[bodies.Nothing]) -> nouns.UserAnswer:
    """DELETE /users/{user}/totp: the account needs no second factor any more. NotFoundError("no-such-user")."""
    return nouns.UserAnswer(_noun(await call.services.catalog.drop_totp(_name(call))))


def _name(call: Call[Any]) -> str:
    return call.request.match_info["user"]


async def _own_or_any(call: Call[Any]) -> str:
    """The user that is meant, as it is spelt; for all but admins of the whole node, others than themselves do not exist."""
    name = _name(call)
    if not _is_own(call, name) and (call.caller.role is not AccessRole.ADMIN or call.caller.limited):
        raise NotFoundError(f"you are no user called {name[:80]!r} of this node", code="no-such-user")
    return (await call.services.catalog.user(name)).name


def _is_own(call: Call[Any], name: str) -> bool:
    own = local_user(trace(call.request))
    return own is not None and own.lower() == name.lower()


def _shares(given: list[str] | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(sorted({check_share_name(share) for share in given}))


def _path(given: str) -> str:
    path = given.rstrip("/")
    return paths.check(path) if path else ""


def _noun(user: User) -> nouns.User:
    return nouns.User(
        name=user.name,
        role=user.role,
        shares=None if user.shares is None else list(user.shares),
        path=user.path,
        enabled=user.enabled,
        totp=user.totp,
        created=nouns.date(user.created_ms),
        login=None if user.login_ms is None else nouns.date(user.login_ms),
    )
