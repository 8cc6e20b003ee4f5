"""What the admin API is asked about people: the users of a node, their passwords and second factors, and logins. As ``bodies``."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from replicad.model.callers import NAME_CHARS_MAX, PASSWORD_CHARS_MAX, AccessRole
from replicad.server.admin.bodies import TOKEN_NAME, Shares

PASSWORD_CHARS_MIN = 8
"""NIST SP 800-63B section 3.1.1.2, with a second factor; what is guessed is throttled in any case."""

_NewPassword = Annotated[str, Meta(min_length=PASSWORD_CHARS_MIN, max_length=PASSWORD_CHARS_MAX)]
_GivenPassword = Annotated[str, Meta(min_length=1, max_length=PASSWORD_CHARS_MAX)]
CODE = "^[0-9]{6}$"
_Code = Annotated[str, Meta(pattern=CODE)]


class NewUser(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /users. ``shares`` null: all. ``path``: the directory below which that person may see and change names, empty: everywhere."""

    name: Annotated[str, Meta(pattern=TOKEN_NAME)]
    password: _NewPassword
    role: AccessRole
    shares: Shares | None = None
    path: Annotated[str, Meta(max_length=1024)] = ""


class UserChange(Struct, frozen=True, forbid_unknown_fields=True):
    """PATCH /users/{user}: what is absent stays."""

    role: AccessRole | UnsetType = UNSET
    shares: Shares | UnsetType | None = UNSET
    path: Annotated[str, Meta(max_length=1024)] | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class NewPassword(Struct, frozen=True, forbid_unknown_fields=True):
    """PUT /users/{user}/password. ``current``: needed for the own account."""

    password: _NewPassword
    current: _GivenPassword | None = None


class TotpCode(Struct, frozen=True, forbid_unknown_fields=True):
    """PUT /users/{user}/totp."""

    code: _Code


class Login(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /sessions. ``code``: of the second factor. ``cookie``: for a browser, which bears the session in a cookie; otherwise its text is in the answer."""

    name: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
    password: _GivenPassword
    code: _Code | None = None
    cookie: bool = False
