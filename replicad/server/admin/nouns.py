"""The objects of the admin API, answered as JSON: what programs see, and what ``--json`` prints.

The answer to a query is one object whose list is named by its noun. Sizes are bytes, dates ISO 8601 with zone, a node is named by ``id`` (and its label ``name``), ``null`` in ``shares``
or ``stages`` means "all". The server encodes these types and the command line decodes them; a field that is added later does not disturb an older client.
"""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

ANSWER_ITEMS_MAX = 1000
"""Most items of one page of a list."""


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


class NodeAnswer(Struct, frozen=True):
    """GET /node."""

    node: Node


class StoreUse(Struct, frozen=True):
    """Contents held here and the disk below them. ``wanted`` contents are named by this node's grant and not held yet."""

    files: int
    used_bytes: int
    free_bytes: int
    total_bytes: int
    wanted: int
    wanted_bytes: int


class Lag(Struct, frozen=True):
    """How far a node is behind what its grant wants. ``since``: when it last had everything (null: not known)."""

    files: int
    bytes: int
    since: str | None


class Peer(Struct, frozen=True):
    """Another member. ``since``: how long it has been linked or not linked, ``percent`` of the bytes it should hold (null: it has not told us), ``lag`` null likewise."""

    id: str
    name: str
    role: str
    site: str
    shares: list[str] | None
    stages: list[str] | None
    linked: bool
    since: str | None
    rtt_ms: float | None
    percent: int | None
    lag: Lag | None


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
    """GET /members: the other members, and who waits for approval."""

    peers: list[Peer]
    pending: list[Pending]


class Blame(Struct, frozen=True):
    """One offence of a peer that this node saw itself."""

    offence: str
    detail: str
    when: str


class PeerDetail(Struct, frozen=True):
    """One member in full. ``reachable``: its peer door answers us. ``blames``: newest first."""

    peer: Peer
    urls: list[str]
    reachable: bool | None
    admitted: str
    admitted_by: str
    admitted_by_name: str
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


class Share(Struct, frozen=True):
    """A share as the network's policies define it. ``stages`` from lowest to highest; the last one is the default for publishing."""

    name: str
    public: bool
    immutable: bool
    stages: list[str]
    created: str


class Shares(Struct, frozen=True):
    """GET /shares."""

    shares: list[Share]


class ShareAnswer(Struct, frozen=True):
    """GET, POST and PATCH /shares/{name}."""

    share: Share


class Blob(Struct, frozen=True):
    """Content that was received whole and verified."""

    sha256: str
    size: int


class Blobs(Struct, frozen=True):
    """POST /blobs: in the order of the upload."""

    blobs: list[Blob]


class Entry(Struct, frozen=True):
    """What a name of a share stands for at one stage. ``available``: this node holds the content, verified. ``siblings``: how many entries lost a conflict with this one."""

    share: str
    path: str
    stage: str
    size: int
    sha256: str
    published: str
    publisher: str
    origin: str
    available: bool
    siblings: int
    record: str


class Entries(Struct, frozen=True):
    """GET /entries. ``next`` is the cursor of the next page, null at the end."""

    entries: list[Entry]
    next: str | None


class Copy(Struct, frozen=True):
    """How much of one content a node holds: 100 is held and verified, null not known."""

    id: str
    name: str
    linked: bool
    percent: int | None


class EntryAnswer(Struct, frozen=True):
    """GET /shares/{share}/entries/{path}: the entry that clients of this node see, the other stages and conflicting siblings, and who of those that want it holds it."""

    entry: Entry
    others: list[Entry]
    copies: list[Copy]


class Published(Struct, frozen=True):
    """One published file. ``state``: ``new``, ``replaced`` or ``unchanged`` (then there is no new record)."""

    path: str
    stage: str
    size: int
    sha256: str
    record: str | None
    state: str


class Publication(Struct, frozen=True):
    """POST /shares/{share}/entries and PUT /shares/{share}/files/{path}."""

    share: str
    published: list[Published]


class NodeColumn(Struct, frozen=True):
    """One column of the matrix."""

    id: str
    name: str
    site: str
    linked: bool


class Row(Struct, frozen=True):
    """One row of the matrix: ``percent`` and ``wanted`` are parallel to the matrix's ``nodes``. ``percent`` null: the node has not told, or does not want it. ``copies`` of ``copies_wanted`` nodes hold it."""

    share: str
    path: str
    stage: str
    size: int
    sha256: str
    percent: list[int | None]
    wanted: list[bool]
    copies: int
    copies_wanted: int


class Matrix(Struct, frozen=True):
    """GET /matrix: this node is the first column."""

    nodes: list[NodeColumn]
    rows: list[Row]
    next: str | None


class Transfer(Struct, frozen=True):
    """Content that this node is fetching now. ``share`` and ``path`` are one of its names; ``sources`` are names of nodes."""

    sha256: str
    share: str
    path: str
    size: int
    done: int
    sources: list[str]
    rate_bytes_s: float


class Transfers(Struct, frozen=True):
    """GET /transfers."""

    transfers: list[Transfer]


class NodeProgress(Struct, frozen=True):
    """How far one member is with what is waited for."""

    id: str
    name: str
    linked: bool
    files: int
    bytes: int


class Waited(Struct, frozen=True):
    """POST /wait. ``state``: ``done``, ``linked`` (every linked node has it, others are offline) or ``pending``. ``nodes`` are the members whose grant wants it, with the files and bytes they
    hold of ``files`` and ``bytes``; ``holders`` counts the nodes that hold everything, ``needed`` how many must.
    """

    state: str
    nodes: list[NodeProgress]
    files: int
    bytes: int
    holders: int
    needed: int
