"""What the admin API is asked in request bodies, with bounds. Unknown fields are refused; msgspec's message names the field and the bound. Query strings: ``queries``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from replicad.model.access import CREDENTIAL_NAME_MAX, NETWORKS_MAX
from replicad.model.callers import PASSWORD_CHARS_MAX, AccessRole
from replicad.model.checksums import ALGORITHMS, Algorithm
from replicad.model.chunks import CONTENT_SIZE_MAX
from replicad.model.records import LABEL_MAX, NAME_MAX, NEAR_MAX, PATHS_MAX, SHARES_MAX, STAGES_MAX, Role
from replicad.model.redirects import Redirects

ENTRIES_PER_CALL_MAX = 25_000
"""Files of one publication: they become visible in one transaction, which takes 4 kB of memory for each (measured by bench/catchup.py), and a daemon should stay below 200 MiB."""
WAIT_ENTRIES_MAX = ENTRIES_PER_CALL_MAX
LONG_POLL_S_MAX = 10.0
INVITE_EXPIRES_S_MAX = 24 * 3600
TOKEN_EXPIRES_S_MAX = 10 * 366 * 24 * 3600
TOKEN_NAME = "^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"  # noqa: S105 - what one may be called
RECORD_BEGINNING = "^[0-9a-f]{8,64}$"
BLOB_BATCH_BYTES_MAX = 16 * 1024 * 1024
BLOB_BATCH_ITEMS_MAX = 256
EXPIRES_S_MAX = 10 * 366 * 24 * 3600

ShareName = Annotated[str, Meta(min_length=1, max_length=63)]
Shares = Annotated[list[ShareName], Meta(min_length=1, max_length=SHARES_MAX)]
StageName = Annotated[str, Meta(min_length=1, max_length=32)]
_Stages = Annotated[list[StageName], Meta(min_length=1, max_length=STAGES_MAX)]
_Path = Annotated[str, Meta(min_length=1, max_length=1024)]
_Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_Paths = Annotated[list[_Path], Meta(min_length=1, max_length=PATHS_MAX)]
_KeyText = Annotated[str, Meta(max_length=256)]
RecordBeginning = Annotated[str, Meta(pattern=RECORD_BEGINNING)]
_Layout = Literal["", "munki"]
_Root = Annotated[str, Meta(max_length=1024)]
_Checksums = Annotated[list[Algorithm], Meta(max_length=len(ALGORITHMS))]
_CredentialName = Annotated[str, Meta(min_length=1, max_length=CREDENTIAL_NAME_MAX)]
_Site = Annotated[str, Meta(max_length=NAME_MAX)]
Label = Annotated[str, Meta(max_length=LABEL_MAX)]
NUMBER_MAX = 2**62
"""Of numbers whose sense is checked where they are used: JSON has no end."""
_Near = Annotated[list[Annotated[str, Meta(max_length=60)]], Meta(max_length=NEAR_MAX)]
_Life = Annotated[int, Meta(ge=1, le=NUMBER_MAX)]


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class Rights(Struct, frozen=True, forbid_unknown_fields=True):
    """What a member may do and gets. Absent: as it is, for a newcomer a mirror with everything, without end. Null: all, or without end. ``paths``: prefixes below which a publisher may publish.
    ``networks`` (CIDR): those whose clients other nodes may send to it, or name it first to; empty: none.
    """

    role: Role | UnsetType = UNSET
    shares: Shares | UnsetType | None = UNSET
    stages: _Stages | UnsetType | None = UNSET
    paths: _Paths | UnsetType | None = UNSET
    networks: _Near | UnsetType = UNSET
    site: _Site | UnsetType = UNSET
    life_s: _Life | UnsetType | None = UNSET


class Invite(Rights, frozen=True, forbid_unknown_fields=True):
    """POST /invites. ``replaces``: a member that gets a new key with this token, and the rights it has (then none may be given)."""

    replaces: Annotated[str, Meta(max_length=80)] | None = None
    expires_s: Annotated[int, Meta(ge=1, le=INVITE_EXPIRES_S_MAX)] = INVITE_EXPIRES_S_MAX


class Join(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /members/join: either a token, or the peer URL and node id of a member. ``merge``: bring this network's own entries along."""

    token: Annotated[str, Meta(max_length=8192)] | None = None
    url: Annotated[str, Meta(max_length=1024)] | None = None
    key: Annotated[str, Meta(max_length=80)] | None = None
    merge: bool = False


class MemberChange(Rights, frozen=True, forbid_unknown_fields=True):
    """PATCH /members/{id} and POST /members/{id}/approve. ``network_key``: the text of the network's key file, to be signed with that instead of this node's key; it is not kept."""

    network_key: _KeyText | None = None


class Rotate(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /node/rotate. ``token``: of an admin, to replace this node's key; an admin's node needs none."""

    token: Annotated[str, Meta(max_length=8192)] | None = None


class Revoke(Struct, frozen=True, forbid_unknown_fields=True, rename={"since": "from"}):
    """POST /members/{id}/revoke. ``from``: what the key said from then on is void; null: from now on."""

    since: Annotated[datetime, Meta(tz=True)] | None = None
    dry_run: bool = False
    network_key: _KeyText | None = None


_Rate = Annotated[str, Meta(min_length=1, max_length=40)]


class LimitsChange(Struct, frozen=True, forbid_unknown_fields=True):
    """PATCH /limits. ``rates``: by ``download``, ``upload`` or ``site:NAME``, a rate, ``none`` or ``default``. ``windows``: all of them; null: those of the configuration. What is absent stays."""

    rates: Annotated[dict[Annotated[str, Meta(max_length=80)], _Rate], Meta(max_length=256)] = {}
    windows: Annotated[list[Annotated[str, Meta(max_length=200)]], Meta(max_length=64)] | UnsetType | None = UNSET


class PeerLimit(Struct, frozen=True, forbid_unknown_fields=True):
    """PUT /members/{id}/limit."""

    rate: _Rate


class NewToken(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /tokens. ``name`` absent: its id. ``shares`` null: all. ``path``: the directory below which it may see and change names, empty: everywhere. ``expires_s`` null: never."""

    role: AccessRole
    name: Annotated[str, Meta(pattern=TOKEN_NAME)] | None = None
    shares: Shares | None = None
    path: Annotated[str, Meta(max_length=1024)] = ""
    expires_s: Annotated[int, Meta(ge=1, le=TOKEN_EXPIRES_S_MAX)] | None = None


class NewShare(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /shares. ``root``: the directory where the tree of the layout begins, empty for the share's own. ``checksums``: algorithms that every node computes of its contents besides SHA-256."""

    name: ShareName
    public: bool = False
    immutable: bool = False
    stages: _Stages | None = None
    layout: _Layout = ""
    root: _Root = ""
    checksums: _Checksums = []


class ShareChange(Struct, frozen=True, forbid_unknown_fields=True):
    """PATCH /shares/{name}: what is absent stays. ``checksums``: all of them. ``passwords``: user to password, null removes the user. ``networks`` (CIDR): none means everywhere. ``prestage_key``: PEM, empty for none.
    ``redirects``: network (CIDR, or any) to nearest, here or a base URL.
    """

    public: bool | UnsetType = UNSET
    stages: _Stages | UnsetType = UNSET
    layout: _Layout | UnsetType = UNSET
    root: _Root | UnsetType = UNSET
    checksums: _Checksums | UnsetType = UNSET
    passwords: Annotated[dict[_CredentialName, Annotated[str, Meta(min_length=1, max_length=PASSWORD_CHARS_MAX)] | None], Meta(max_length=16)] = {}
    networks: Annotated[list[Annotated[str, Meta(max_length=60)]], Meta(max_length=NETWORKS_MAX)] | UnsetType = UNSET
    prestage_key: Annotated[str, Meta(max_length=8192)] | UnsetType = UNSET
    redirects: Redirects | UnsetType = UNSET


class NewShareToken(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /shares/{share}/tokens. ``expires_s`` absent: it lives until it is revoked."""

    name: _CredentialName
    expires_s: Annotated[int, Meta(ge=1, le=EXPIRES_S_MAX)] | None = None


class SignUrl(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /shares/{share}/urls."""

    path: _Path
    expires_s: Annotated[int, Meta(ge=1, le=EXPIRES_S_MAX)] = 24 * 3600


class NewEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One name for one content that was uploaded before."""

    path: _Path
    sha256: _Sha256
    size: Annotated[int, Meta(ge=0, le=CONTENT_SIZE_MAX)]


class Publish(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /shares/{share}/entries: all of these or none. ``stage`` absent: the share's last one. ``publisher`` is a label for people. ``urgent``: before others, and no limit holds it up."""

    entries: Annotated[list[NewEntry], Meta(min_length=1, max_length=ENTRIES_PER_CALL_MAX)]
    stage: StageName | None = None
    publisher: Label = ""
    urgent: bool = False
    dry_run: bool = False


class Promote(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /shares/{share}/promote. ``source`` absent: the lowest stage below ``to`` that has the file."""

    path: _Path
    to: StageName
    source: StageName | None = None
    publisher: Label = ""


class Remove(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /shares/{share}/remove: these names and all below them, at every stage unless ``stage`` says which. ``expect`` is how many names that must be; needed when they are many."""

    paths: Annotated[list[_Path], Meta(min_length=1, max_length=ENTRIES_PER_CALL_MAX)]
    stage: StageName | None = None
    publisher: Label = ""
    dry_run: bool = False
    expect: Annotated[int, Meta(ge=1, le=NUMBER_MAX)] | None = None


class Undelete(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /shares/{share}/undelete: what the last removal of this name, or of what lies below it, ended. ``stage`` absent: wherever it did."""

    path: _Path
    stage: StageName | None = None
    publisher: Label = ""
    dry_run: bool = False


class Rollback(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /shares/{share}/rollback. ``to``: a record's id or at least its first 8 digits; absent: the version before the current one. ``stage`` absent: the only one that has the file."""

    path: _Path
    to: RecordBeginning | None = None
    stage: StageName | None = None
    publisher: Label = ""


class TakeDown(Struct, frozen=True, forbid_unknown_fields=True):
    """PUT /takedowns/{sha256}."""

    reason: Label = ""


class WaitEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """What a name stands for. ``stage`` absent: the lowest stage that this node carries and that has a live file there."""

    path: _Path
    stage: StageName | None = None


class Wait(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /wait. ``nodes``: ``all``, a number of nodes (this one included) or a percentage of those that want it (``50%``).

    No ``entries``: only whether so many nodes can hold what would be published at ``stage`` (absent: the share's last), which is answered at once.
    """

    share: ShareName
    entries: Annotated[list[WaitEntry], Meta(max_length=WAIT_ENTRIES_MAX)]
    stage: StageName | None = None
    nodes: Annotated[str, Meta(pattern="^(all|[1-9][0-9]{0,4}|([1-9][0-9]?|100)%)$")] = "all"
    timeout_s: Annotated[float, Meta(ge=0, le=LONG_POLL_S_MAX)] = LONG_POLL_S_MAX


class Scrub(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /store/scrub. ``sample``: that part of all files; 1 reads everything."""

    sample: Annotated[float, Meta(gt=0, le=1)] = 1.0


class Collect(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /store/gc."""

    dry_run: bool = False
