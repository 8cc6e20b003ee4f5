"""Shares as the admin API shows them: who may download, and what a Munki repository holds back."""

from __future__ import annotations

from msgspec import Struct


class Share(Struct, frozen=True):
    """A share as the network's policies define it. ``stages`` from lowest to highest; the last one is the default for publishing. ``networks``: clients elsewhere get nothing. ``checksums``: algorithms that nodes compute of
    its contents besides SHA-256. ``redirects``: network (CIDR, or any) to nearest, here or a base URL.
    """

    name: str
    public: bool
    immutable: bool
    stages: list[str]
    created: str
    layout: str = ""
    checksums: list[str] = []
    users: list[str] = []
    tokens: list[ShareToken] = []
    networks: list[str] = []
    prestage: bool = False
    redirects: dict[str, str] = {}


class ShareToken(Struct, frozen=True):
    """A bearer token of a share, without the secret. ``expires`` is null if it lives until it is revoked."""

    name: str
    expires: str | None


class MadeShareToken(Struct, frozen=True):
    """POST /shares/{share}/tokens: ``token`` is said once and kept nowhere."""

    token: str
    name: str
    expires: str | None


class SignedUrl(Struct, frozen=True):
    """POST /shares/{share}/urls."""

    url: str
    expires: str


class MunkiWaiting(Struct, frozen=True):
    """A catalog or manifest whose newest version is not shown by this node. ``missing``: what it names and is not here, at most 100 paths; ``shown``: when the version was published that clients get, null: none."""

    path: str
    published: str
    shown: str | None
    missing: list[str]


class MunkiRepository(Struct, frozen=True):
    """``indexes`` counts catalogs and manifests."""

    share: str
    indexes: int
    waiting: list[MunkiWaiting]


class MunkiStatus(Struct, frozen=True):
    """GET /munki."""

    repositories: list[MunkiRepository]


class Shares(Struct, frozen=True):
    """GET /shares: by name. ``next`` is the cursor of the next page, null at the end."""

    shares: list[Share]
    next: str | None = None


class ShareAnswer(Struct, frozen=True):
    """GET, POST and PATCH /shares/{name}."""

    share: Share


class RemovedShare(Struct, frozen=True):
    """DELETE /shares/{share}. ``names``: how many it has, at whatever stage; ``removed`` is false with ``dry_run``."""

    share: str
    names: int
    removed: bool
