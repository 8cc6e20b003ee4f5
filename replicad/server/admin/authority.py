"""What a caller may ask: its role against the route's, its limits against the shares and names that the request gives. Whatever is not allowed here is refused.

A caller limited to shares or to a directory must name, in the path or in the body, a share (and a name in it) that is within its limits. Only a route that is ``scoped`` may be asked without: its
handler shows and does nothing beyond the limits of ``call.caller``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from replicad.errors import NotAllowedError, NotFoundError
from replicad.model.callers import Caller
from replicad.server.admin.routes import Call, Route

NAMED_SHOWN_MAX = 5
"""Names shown of a request that gives many."""


def check_role(route: Route[Any], caller: Caller) -> None:
    """NotAllowedError unless the caller's role is at least the route's."""
    if not caller.role.includes(route.role):
        raise NotAllowedError(
            f"{route.method} {route.path} needs the role {route.role}; {caller.name} is {caller.role}",
            hint=f"an admin makes a token for that: replicad token create --role {route.role}",
        )


def check_limits(route: Route[Any], call: Call[Any]) -> None:
    """NotAllowedError unless everything that is asked about is within the caller's limits. NotFoundError for a share within them that does not exist."""
    caller = call.caller
    if not caller.limited:
        return
    share, names = named_share(call), list(named_paths(call))
    if share is None and not route.scoped:
        raise NotAllowedError(f"{route.method} {route.path} is about the whole node; {caller.name} is limited to {_limits(caller)}")
    if caller.path and not names and not route.scoped:
        raise NotAllowedError(f"{route.method} {route.path} is about a whole share; {caller.name} is limited to {_limits(caller)}")
    check_names(call, share, names)


def check_names(call: Call[Any], share: str | None, names: Sequence[str]) -> None:
    """The same for a share, and names in it, that the request gives otherwise."""
    caller = call.caller
    if not caller.limited:
        return
    if share is not None and not caller.reaches(share):
        raise NotAllowedError(f"{caller.name} has no right to the share {share[:80]!r}")
    for name in names:
        if not caller.reaches(share or "", name):
            raise NotAllowedError(f"{caller.name} has no right to {name[:80]!r}; it is limited to {_limits(caller)}")
    if share is not None and share not in call.services.catalog.replica.trust.shares():
        raise NotFoundError(f"no share is called {share!r}", code="no-such-share")


def named_share(call: Call[Any]) -> str | None:
    """The share that the request names, in its path or its body."""
    share = call.request.match_info.get("share") or getattr(call.asked, "share", None)
    return share if isinstance(share, str) else None


def named_paths(call: Call[Any]) -> Iterator[str]:
    """The names inside the share that the request gives, in its path or its body."""
    if "path" in call.request.match_info:
        yield call.request.match_info["path"]
    asked = call.asked
    if isinstance(path := getattr(asked, "path", None), str) and path:
        yield path
    for path in getattr(asked, "paths", None) or ():
        yield path
    for one in getattr(asked, "entries", None) or ():
        yield one.path


def _limits(caller: Caller) -> str:
    shares = "all shares" if caller.shares is None else f"share {', '.join(sorted(caller.shares)[:NAMED_SHOWN_MAX]) or 'none'}"
    return f"{shares}, below {caller.path}/" if caller.path else shares
