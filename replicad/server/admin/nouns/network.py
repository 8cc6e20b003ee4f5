"""Nouns of the network: nodes, members, shares, problems."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct


def date(ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat().replace("+00:00", "Z")


class Problem(Struct, frozen=True, omit_defaults=True):
    """An RFC 9457 problem document. ``code`` is stable, ``detail`` a sentence, ``hint`` the next command to try."""

    status: int
    title: str
    code: str
    detail: str
    hint: str = ""
    type: str = "about:blank"


class Node(Struct, frozen=True):
    """This node. ``state`` is ``ok`` or ``degraded`` (see the problems)."""

    id: str
    name: str
    site: str
    network: str
    role: str
    version: str
    started: str
    uptime_s: int
    state: str
    downloads_url: str = ""


class NodeAnswer(Struct, frozen=True):
    """GET /node."""

    node: Node


class Rotated(Struct, frozen=True):
    """POST /node/rotate: this node's new id, and the one it had."""

    id: str
    former: str


class StoreUse(Struct, frozen=True):
    """Contents held here and the disk below them. ``wanted`` contents are named by this node's grant and not held yet; ``taken_down`` counts
    the contents that no node of the network serves; ``quota_bytes`` bounds what may be used (0: no such bound).
    """

    files: int
    used_bytes: int
    free_bytes: int
    total_bytes: int
    wanted: int
    wanted_bytes: int
    taken_down: int = 0
    quota_bytes: int = 0


class Lag(Struct, frozen=True):
    """How far a node is behind what its grant wants. ``since``: when it last had everything (null: not known)."""

    files: int
    bytes: int
    since: str | None


class Peer(Struct, frozen=True):
    """Another member. ``since``: how long it has been linked or not linked, ``percent`` of the bytes it should hold (null: it has not told us), ``lag`` null likewise.

    ``paths``: below which it may publish (null: everywhere), ``networks``: whose clients an admin gave it, ``until``: the end of its membership (null: none). ``limit_bytes_s``: on what this node exchanges with it, in each direction (null:
    none); ``paused``: this node exchanges nothing with it.
    """

    id: str
    name: str
    role: str
    site: str
    shares: list[str] | None
    stages: list[str] | None
    paths: list[str] | None
    until: str | None
    linked: bool
    since: str | None
    rtt_ms: float | None
    percent: int | None
    lag: Lag | None
    limit_bytes_s: int | None = None
    paused: bool = False
    networks: list[str] = []


class Trouble(Struct, frozen=True):
    """Something that needs a person. ``node`` is the member concerned, if any; ``hint`` the next command."""

    code: str
    message: str
    hint: str = ""
    node: str | None = None


class Status(Struct, frozen=True):
    """GET /status. ``stages`` counts the live files of each stage that this node carries, lowest stage first."""

    node: Node
    store: StoreUse
    stages: dict[str, int]
    peers: list[Peer]
    problems: list[Trouble]


class Pending(Struct, frozen=True):
    """Somebody asked to join without a token. ``words`` are to be compared by both sides."""

    id: str
    name: str
    asked: str
    words: str


class Peers(Struct, frozen=True):
    """GET /members: the other members by name, and who waits for approval (on every page). ``next`` is the cursor of the next page, null at the end."""

    peers: list[Peer]
    pending: list[Pending]
    next: str | None = None


class Blame(Struct, frozen=True):
    """One offence of a peer that this node saw itself."""

    offence: str
    detail: str
    when: str


class Fork(Struct, frozen=True):
    """Proof that a node's key is used twice: different signed ``records`` at one place of its chain in ``share``, from which on nothing counts until an admin decides."""

    share: str
    seq: int
    records: list[str]


class PeerDetail(Struct, frozen=True):
    """One member in full. ``reachable``: its peer door answers us. ``blames``: newest first."""

    peer: Peer
    urls: list[str]
    reachable: bool | None
    admitted: str
    admitted_by: str
    admitted_by_name: str
    forks: list[Fork]
    blames: list[Blame]


class Invited(Struct, frozen=True):
    """POST /invites."""

    token: str
    expires: str


class Joined(Struct, frozen=True):
    """POST /members/join. ``state``: ``member`` (everything is synchronised) or ``pending`` (somebody must approve; compare ``words``)."""

    state: str
    network: str
    words: str


class Changed(Struct, frozen=True):
    """A member was approved, changed or removed."""

    id: str
    name: str


class Revoked(Struct, frozen=True):
    """POST /members/{id}/revoke. ``records``: how many of its records are void, ``names``: how many names they decided."""

    id: str
    name: str
    records: int
    names: int


class Audited(Struct, frozen=True):
    """One signed record. ``share`` is empty for the network's own; ``subject`` is the node that a grant or cut is about, ``path`` and ``stage`` the file; ``reason`` says why it does not count.

    A cut that takes effect counts, also one that excludes itself: a node that leaves, or replaces its key.
    """

    record: str
    when: str
    origin: str
    origin_name: str
    share: str
    type: str
    subject: str | None
    subject_name: str | None
    path: str | None
    stage: str | None
    detail: str
    counts: bool
    reason: str


class Audit(Struct, frozen=True):
    """GET /audit: oldest first. ``next`` is the cursor of the following page."""

    records: list[Audited]
    next: str | None


class Step(Struct, frozen=True):
    """One step of a check. ``ok`` null: skipped, because an earlier one failed."""

    step: str
    ok: bool | None
    detail: str


class Checked(Struct, frozen=True):
    """POST /members/{id}/check."""

    id: str
    name: str
    ok: bool
    steps: list[Step]


class Finding(Struct, frozen=True):
    """One line of the doctor. ``state``: ``ok``, ``warning`` or ``failed``."""

    check: str
    state: str
    message: str
    hint: str = ""


class Examined(Struct, frozen=True):
    """GET /doctor."""

    findings: list[Finding]


class Limit(Struct, frozen=True):
    """One limit in bytes per second (null: none). ``scope``: ``download``, ``upload``, ``site:NAME`` or a node's id (then ``name`` is that node's); ``now_bytes_s`` applies now, ``bytes_s`` outside
    of all windows; ``origin``: ``set`` here, or ``configuration``.
    """

    scope: str
    name: str
    now_bytes_s: int | None
    bytes_s: int | None
    origin: str


class Limits(Struct, frozen=True):
    """GET and PATCH /limits. ``windows`` as text, ``windows_origin`` as of a limit; ``zone``: the time zone that they follow; ``paused``: names of nodes with which nothing is exchanged."""

    limits: list[Limit]
    windows: list[str]
    windows_origin: str
    zone: str
    paused: list[str]


class Setting(Struct, frozen=True, omit_defaults=True):
    """One key of the configuration. ``value`` is TOML; ``origin`` is FILE:LINE, "environment" or "default"."""

    key: str
    value: str
    origin: str = ""


class Settings(Struct, frozen=True):
    """GET /config: what counts now, every key, in the order of the example; ``file`` is where it was read from. Secrets are in files that it names."""

    file: str
    settings: list[Setting]


class Reloaded(Struct, frozen=True):
    """POST /reload: the changed keys that count now, and those that need a restart."""

    applied: list[str]
    restart: list[str]
