"""What the catalog answers about things that have no noun in ``model``: plain frozen values, no handles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from replicad.model.callers import AccessRole, Account, Source
from replicad.model.entries import Listed
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.records import Envelope, Record


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one envelope was not stored: ``code`` is the stable word of the error or admission, ``detail`` a sentence."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a batch of envelopes. ``new`` are durable now, in chain order. ``gaps`` counts records whose predecessor is not here: they must be pulled."""

    new: tuple[Record, ...]
    duplicates: int
    refused: tuple[Refusal, ...]
    gaps: int


@dataclass(frozen=True, slots=True)
class Voided:
    """What of a key's records a revocation takes the effect from: how many, and how many names they decide now."""

    records: int
    names: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a new entry of one name would meet. ``listed`` is the register's winner, ``live`` what the new entry must supersede, ``collides`` a live file that is a parent or child of the name."""

    listed: Listed | None
    live: tuple[RecordId, ...]
    collides: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts and bytes of everything kept. ``stages`` counts the live files of each stage name, over all shares."""

    records: int
    record_bytes: int
    contents: int
    content_bytes: int
    wanted: int
    wanted_bytes: int
    stages: dict[str, int]


@dataclass(frozen=True, slots=True)
class Missing:
    """What this node lacks of one share: how many contents, their bytes, the time of the oldest winner that names one (None if nothing is missing), and the newest few of them."""

    count: int
    size_bytes: int
    oldest: Stamp | None
    newest: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """A content whose copy on this disk was found to be wrong or gone. ``detail`` says what was wrong, for people."""

    content: Digest
    size: int
    found_ms: int
    detail: str


class Copied(NamedTuple):
    """What a copy of the catalog holds: its schema's version, records, living files over all shares and stages, API tokens, actions."""

    schema: int
    records: int
    files: int
    tokens: int
    actions: int


class PartialRow(NamedTuple):
    """Content half fetched: the chunks set in ``bitmap`` (bit i of byte i // 8) are verified and durable."""

    content: Digest
    manifest: Digest
    bitmap: bytes


class HeadRow(NamedTuple):
    """The newest signed head of one node for one share."""

    node: NodeId
    share: str
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Invite:
    """An invitation this node made. ``body`` is JSON that membership wrote; ``used_by`` the one key that it admitted, if any."""

    secret_hash: Digest
    body: bytes
    expires_ms: int
    used_by: NodeId | None


class Pending(NamedTuple):
    """A signed request to join that waits for an admin. ``body`` is JSON that membership wrote."""

    node: NodeId
    body: bytes
    asked_ms: int


@dataclass(frozen=True, slots=True)
class Blame:
    """One offence of a member."""

    node: NodeId
    offence: str
    detail: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Token:
    """An API token, without its secret. ``shares`` None: all; ``path``: a collision key, empty for everywhere; ``expires_ms`` None: never; ``used_ms``: when it was last used, to the minute."""

    id: str
    name: str
    role: AccessRole
    shares: tuple[str, ...] | None
    path: str
    created_ms: int
    expires_ms: int | None = None
    used_ms: int | None = None


class User(NamedTuple):
    """A person whom this node itself knows. ``shares`` and ``path`` as a token's; ``enabled``: may log in; ``login_ms``: when the last session began; ``totp``: whether a second factor counts."""

    name: str
    role: AccessRole
    shares: tuple[str, ...] | None
    path: str
    enabled: bool
    created_ms: int
    login_ms: int | None = None
    totp: bool = False

    @property
    def account(self) -> Account:
        """As whom that person acts."""
        return Account(self.name, Source.LOCAL, self.role, None if self.shares is None else frozenset(self.shares), self.path)


class UserSecrets(NamedTuple):
    """What a user can be known by: the verifier of the password, the second factor that counts, and one that was offered. None: there is none."""

    user: User
    verifier: str
    totp_secret: bytes | None
    totp_offered: bytes | None


class Session(NamedTuple):
    """Of a person who logged in. ``account``: what it may do now; ``used_ms``: to the minute."""

    account: Account
    created_ms: int
    used_ms: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A resumable upload: who began it, where its file shall be published and what it is promised to be. The first ``offset`` of its ``size`` bytes are safe on the disk, ``digest`` is their SHA-256. ``metadata``
    is what the client said when it began.
    """

    id: str
    caller: str
    share: str
    path: str
    stage: str | None
    publisher: str
    urgent: bool
    metadata: str
    size: int
    expect: Digest | None
    offset: int
    digest: Digest
    published: bool
    expires_ms: int


class Action(NamedTuple):
    """What somebody did through the admin door. ``caller`` and ``origin``: who, and from which address (or ``socket``); ``request``: the request's id; ``target``: the path of the API;
    ``detail``: what of the request says more; ``status`` and ``code``: the answer (``code`` is empty when it went well).
    """

    seq: int
    at_ms: int
    caller: str
    origin: str
    request: str
    method: str
    target: str
    detail: str
    status: int
    code: str


@dataclass(frozen=True, slots=True)
class ActionChain:
    """The actions ``first`` to ``last`` (``last`` smaller: none) and the hash of the last one. ``broken``: the seq at which they are not as they were written, None: nowhere."""

    first: int
    last: int
    last_hash: bytes
    broken: int | None
