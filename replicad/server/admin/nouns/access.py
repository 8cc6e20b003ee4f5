"""Nouns of who may use the admin door, and of what they did there."""

from __future__ import annotations

from msgspec import Struct


class Token(Struct, frozen=True):
    """An API token. ``shares`` null: all; ``path``: the directory below which it may see and change names, empty: everywhere; ``expires`` null: never; ``used`` null: never yet, otherwise to the minute."""

    id: str
    name: str
    role: str
    shares: list[str] | None
    path: str
    created: str
    expires: str | None
    expired: bool
    used: str | None


class Tokens(Struct, frozen=True):
    """GET /tokens: oldest first. ``next`` is the cursor of the next page, null at the end."""

    tokens: list[Token]
    next: str | None = None


class TokenAnswer(Struct, frozen=True):
    """DELETE /tokens/{token}: the token that was revoked."""

    token: Token


class MadeToken(Struct, frozen=True):
    """POST /tokens. ``secret`` is what its bearer presents; it is shown this once."""

    token: Token
    secret: str


class Whoami(Struct, frozen=True):
    """GET /whoami: who asks and what they may. ``shares`` null: all; ``path`` empty: everywhere. ``via``: what they are known by: ``socket``, ``root-token``, ``token``, ``session`` or ``cookie``. ``user``: which of
    GET /users that is, null: none. ``expires``: when a session ends if it is not used until then. ``csrf``: what a write with the cookie shows as ``X-CSRF-Token``.
    """

    name: str
    role: str
    shares: list[str] | None
    path: str
    via: str
    user: str | None
    expires: str | None
    csrf: str | None


class LoggedIn(Struct, frozen=True):
    """POST /sessions. ``secret``: what the session's bearer presents, shown this once; null if it is in a cookie."""

    session: Whoami
    secret: str | None


class User(Struct, frozen=True):
    """A person whom this node itself knows. ``shares`` null: all; ``path``: the directory below which they may see and change names, empty: everywhere; ``totp``: whether they need a second factor;
    ``login``: when they logged in last, null: never yet.
    """

    name: str
    role: str
    shares: list[str] | None
    path: str
    enabled: bool
    totp: bool
    created: str
    login: str | None


class Users(Struct, frozen=True):
    """GET /users: by name. ``next`` is the cursor of the next page, null at the end."""

    users: list[User]
    next: str | None = None


class UserAnswer(Struct, frozen=True):
    """One user, as it is now; of DELETE /users/{user}: as it was."""

    user: User


class OfferedTotp(Struct, frozen=True):
    """POST /users/{user}/totp: a secret for an authenticator app, as URI (also for a QR code) and to be typed. It is shown this once."""

    uri: str
    secret: str


class Action(Struct, frozen=True):
    """What somebody did through the admin door. ``caller``: who; ``origin``: from which address, or ``socket``; ``request``: its X-Request-Id; ``target``: the path of the API; ``detail``: what of the
    request says more; ``status`` and ``code``: how it was answered (``code`` is empty when it went well).
    """

    seq: int
    when: str
    caller: str
    origin: str
    request: str
    method: str
    target: str
    detail: str
    status: int
    code: str


class Actions(Struct, frozen=True):
    """GET /audit/log: oldest first. ``next`` is the cursor of the following page."""

    actions: list[Action]
    next: int | None


class ActionChain(Struct, frozen=True):
    """GET /audit/verify: of the actions ``first`` to ``last``, whether they are as they were written; ``broken`` is the first that is not. ``hash`` stands for all of them: kept elsewhere, it shows later
    that nobody made a whole new log.
    """

    ok: bool
    first: int
    last: int
    hash: str
    broken: int | None
