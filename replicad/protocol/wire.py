"""The messages of a link: small frozen types, msgpack on the wire, bounded on decoding.

One WebSocket binary frame carries one message, at most ``FRAME_BYTES_MAX``. The handshake (``ClientHello``, ``ServerHello``, ``Finish``) comes first; everything else only after it. A
message that does not decode is the peer's fault: ``PeerError``. Except for what a later version may add: items after the known ones, and messages of other names, are ignored. Specification:
docs/protocol.md, "Messages"; tests/protocol/wire_version_1.json has one encoded frame of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from replicad.errors import InputError, PeerError
from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.model.ids import SIZE_BYTES, Digest, NodeId, RecordId, Stamp, from_wire, to_binary
from replicad.model.records import Envelope

PROTOCOL_VERSION_MIN = 1
PROTOCOL_VERSION_MAX = 1
FRAME_BYTES_MAX = 1 << 20
RECORDS_PER_MESSAGE_MAX = 1024
SEEK_PER_MESSAGE_MAX = 1024
BATCH_CONTENTS_MAX = 256
HEADS_PER_MESSAGE_MAX = 256
LINES_PER_MESSAGE_MAX = 2048
ENDS_PER_LINE_MAX = 64
JOIN_BYTES_MAX = 32 * 1024
RECORDS_BYTES_PER_MESSAGE = 512 * 1024
"""A sender stops adding records to a message beyond this many payload bytes."""

_T = TypeVar("_T")
_Key32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
_Share = Annotated[str, Meta(max_length=63)]
_Index = Annotated[int, Meta(ge=0, lt=4096)]
_Seq = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Bitmap = Annotated[bytes, Meta(max_length=512)]
_Text = Annotated[str, Meta(max_length=500)]
_Bound = Annotated[bytes, Meta(max_length=32)]
_Version = Annotated[int, Meta(ge=1, le=65535)]


class ClientHello(Struct, frozen=True, array_like=True, tag="hello"):
    """First message, by the side that connected. ``certificate`` is the SHA-256 of the TLS certificate it saw (empty without TLS)."""

    version_min: _Version
    version_max: _Version
    network: NodeId
    node: NodeId
    ephemeral: _Key32
    nonce: _Key32
    certificate: Annotated[bytes, Meta(max_length=32)]


class ServerHello(Struct, frozen=True, array_like=True, tag="welcome"):
    """Answer: the same for the other side, its certificate's fingerprint as it knows it, the version chosen, and its signature over the transcript so far."""

    version: _Version
    node: NodeId
    ephemeral: _Key32
    nonce: _Key32
    certificate: Annotated[bytes, Meta(max_length=32)]
    signature: _Signature


class Finish(Struct, frozen=True, array_like=True, tag="finish"):
    """The connecting side's signature over the whole transcript. Only after it is either side believed."""

    signature: _Signature


class Ping(Struct, frozen=True, array_like=True, tag="ping"):
    """Are you there? Answered at once by ``Pong`` with the same number."""

    number: _Seq


class Pong(Struct, frozen=True, array_like=True, tag="pong"):
    """The answer to the ``Ping`` of that number; the time between is the round trip."""

    number: _Seq


class Renew(Struct, frozen=True, array_like=True, tag="renew"):
    """New session keys, begun by the side that opened the link. Step 0 offers a key, step 1 answers with one (both are accepted from then on), step 2 says that the new epoch is in use."""

    step: Annotated[int, Meta(ge=0, le=2)]
    ephemeral: _Bound = b""
    nonce: _Bound = b""


class Records(Struct, frozen=True, array_like=True, tag="records"):
    """Signed records: pushed as news (``pull`` 0) or in answer to the ``Pull`` of that number. ``more``: ask again, the answer was cut at the batch bound."""

    envelopes: Annotated[tuple[Envelope, ...], Meta(max_length=RECORDS_PER_MESSAGE_MAX)]
    pull: _Seq = 0
    more: bool = False


class Heads(Struct, frozen=True, array_like=True, tag="heads"):
    """Signed heads (envelopes of type "head"), the sender's own or relayed. ``ages_s``: for each, how many seconds ago its author made it, as far as the sender can tell by its own clock;
    a head that travelled through several nodes is thus never taken for a fresh one.
    """

    envelopes: Annotated[tuple[Envelope, ...], Meta(max_length=HEADS_PER_MESSAGE_MAX)]
    ages_s: Annotated[tuple[_Seq, ...], Meta(max_length=HEADS_PER_MESSAGE_MAX)]


class Eager(Struct, frozen=True, array_like=True, tag="eager"):
    """Whether the receiver should relay what these origins author to the sender. It should, until told otherwise: whoever gets everything twice says so. No origins: all of them."""

    origins: Annotated[tuple[NodeId, ...], Meta(max_length=1024)]
    wanted: bool


class Compare(Struct, frozen=True, array_like=True, tag="compare"):
    """Anti-entropy, step 1: the frontier hash of every share both sides are granted, as the sender sees it. Answered by ``Compared`` and a ``Frontier`` per share that differs; ``whole``: with
    all its lines, because those that changed did not help.
    """

    frontiers: Annotated[dict[_Share, Digest], Meta(max_length=1025)]
    whole: bool = False


class Compared(Struct, frozen=True, array_like=True, tag="compared"):
    """The answer to ``Compare``: the shares whose frontier is the same here. Shares that the sender is not granted, or that do not exist here, are in no answer."""

    same: Annotated[tuple[_Share, ...], Meta(max_length=1025)]
    differ: Annotated[tuple[_Share, ...], Meta(max_length=1025)] = ()


class End(Struct, frozen=True, array_like=True):
    """One end of a chain: the last record of one incarnation that no other continues."""

    incarnation: Stamp
    seq: _Seq
    id: RecordId


class Frontier(Struct, frozen=True, array_like=True, tag="frontier"):
    """Step 2: the chain ends of a share, one line per origin. ``whole``: every line of the sender with ``after`` < origin <= ``until`` (empty: no bound), so that a long frontier is sent in
    parts; otherwise only lines that may be news to the receiver. ``reply``: please answer with the lines that may be news to me.
    """

    share: _Share
    lines: Annotated[dict[NodeId, Annotated[tuple[End, ...], Meta(min_length=1, max_length=ENDS_PER_LINE_MAX)]], Meta(max_length=LINES_PER_MESSAGE_MAX)]
    whole: bool = False
    reply: bool = False
    after: _Bound = b""
    until: _Bound = b""


class Pull(Struct, frozen=True, array_like=True, tag="pull"):
    """Step 3: send the records of ``origin`` in ``share`` that are neither in ``have`` (incarnation -> last seq) nor ancestors of those, in chain order. Answered by ``Records`` of that number,
    empty if there is nothing to send.
    """

    number: Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
    share: _Share
    origin: NodeId
    have: Annotated[dict[Stamp, _Seq], Meta(max_length=64)]


class Interest(Struct, frozen=True, array_like=True, tag="interest"):
    """I am fetching this content: tell me what you have of it, now and as it grows. ``active`` False ends it."""

    content: Digest
    manifest: Digest
    active: bool = True


class Have(Struct, frozen=True, array_like=True, tag="have"):
    """What the sender can serve of a content: ``bitmap`` (bit i of byte i // 8, least significant first), or everything when ``complete``."""

    content: Digest
    manifest: Digest
    bitmap: _Bitmap
    complete: bool


class HaveMore(Struct, frozen=True, array_like=True, tag="more"):
    """Chunks that became servable since the last Have or HaveMore. ``suggest`` are chunks the sender has sent least."""

    content: Digest
    manifest: Digest
    chunks: Annotated[tuple[_Index, ...], Meta(max_length=4096)]
    suggest: Annotated[tuple[_Index, ...], Meta(max_length=64)] = ()


class Small(Struct, frozen=True, array_like=True, gc=False):
    """A content of at most one chunk. Its manifest follows from digest and size, so a size that lies names something nobody has."""

    content: Digest
    size: Annotated[int, Meta(ge=0, le=CHUNK_SIZE_MIN)]


class Seek(Struct, frozen=True, array_like=True, tag="seek"):
    """I want these small contents: tell me which you hold, now and when more arrive. ``active`` False ends it."""

    contents: Annotated[tuple[Small, ...], Meta(max_length=SEEK_PER_MESSAGE_MAX)]
    active: bool = True


class Hold(Struct, frozen=True, array_like=True, tag="hold"):
    """Of the small contents that the receiver seeks, the sender holds these; or, with ``held`` False, does not any more."""

    contents: Annotated[tuple[Small, ...], Meta(max_length=SEEK_PER_MESSAGE_MAX)]
    held: bool = True


def parts(contents: Sequence[Small]) -> Iterator[tuple[Small, ...]]:
    """The contents in as many lists as ``Seek`` or ``Hold`` need messages."""
    for start in range(0, len(contents), SEEK_PER_MESSAGE_MAX):
        yield tuple(contents[start : start + SEEK_PER_MESSAGE_MAX])


class Send(Struct, frozen=True, array_like=True, tag="send"):
    """To a holder whose peer door the asker cannot reach: PUT these chunks to my peer door. ``transfer`` names the answer; count 0 asks for the manifest."""

    transfer: Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
    content: Digest
    manifest: Digest
    first: _Index
    count: Annotated[int, Meta(ge=0, le=16)]


class SendMany(Struct, frozen=True, array_like=True, tag="sendmany"):
    """The same for small contents: PUT one batch answer with those of them that you hold to my peer door. ``patient``: without those that you just gave to another, who will pass them on."""

    transfer: Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
    contents: Annotated[tuple[Small, ...], Meta(min_length=1, max_length=BATCH_CONTENTS_MAX)]
    patient: bool = False


class Unsent(Struct, frozen=True, array_like=True, tag="unsent"):
    """The ``Send`` or ``SendMany`` of that number cannot be answered: ``busy``, ``absent``, ``refused`` (not granted), ``unreachable`` (your door does not answer me)."""

    transfer: _Seq
    code: Annotated[str, Meta(max_length=40)]


class Relay(Struct, frozen=True, array_like=True, tag="relay"):
    """A node that wants to join asked the sender; its token was made by the receiver, who is asked to admit it. ``body`` is the request as it came (``protocol.joining``)."""

    number: _Seq
    body: Annotated[bytes, Meta(max_length=JOIN_BYTES_MAX)]


class Relayed(Struct, frozen=True, array_like=True, tag="relayed"):
    """What became of the ``Relay`` of that number: admitted (``status`` 200: the grant is on its way as a record), or why not."""

    number: _Seq
    status: Annotated[int, Meta(ge=200, le=599)]
    code: Annotated[str, Meta(max_length=40)] = ""
    message: _Text = ""


class Fault(Struct, frozen=True, array_like=True, tag="fault"):
    """The sender closes the link because of this."""

    code: Annotated[str, Meta(max_length=40)]
    message: _Text


Handshake = ClientHello | ServerHello | Finish | Fault
Message = (
    Ping
    | Pong
    | Renew
    | Records
    | Heads
    | Eager
    | Compare
    | Compared
    | Frontier
    | Pull
    | Interest
    | Have
    | HaveMore
    | Seek
    | Hold
    | Send
    | SendMany
    | Unsent
    | Relay
    | Relayed
    | Fault
)


def _from_wire(kind: type, value: Any) -> Any:
    """Most of what messages hold are digests: those are made without a call of Python's (0.3 instead of 0.5 microseconds for a small content)."""
    return bytes.__new__(Digest, value) if kind is Digest and type(value) is bytes and len(value) == SIZE_BYTES else from_wire(kind, value)


_ENCODER = msgspec.msgpack.Encoder(enc_hook=to_binary)
_HANDSHAKE: msgspec.msgpack.Decoder[Handshake] = msgspec.msgpack.Decoder(Handshake, dec_hook=from_wire)
_MESSAGE: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message, dec_hook=_from_wire)
_ITEMS: msgspec.msgpack.Decoder[list[msgspec.Raw]] = msgspec.msgpack.Decoder(list[msgspec.Raw])
_NAMES = frozenset(kind.__struct_config__.tag for kind in get_args(Message))


def encode(message: Handshake | Message) -> bytes:
    """One frame."""
    return _ENCODER.encode(message)


def decode_handshake(frame: bytes) -> Handshake:
    """A handshake message, or PeerError("bad-frame")."""
    return _decode(_HANDSHAKE, frame)


def decode(frame: bytes) -> Message | None:
    """A message of an established link; None for one whose name this version does not know, which is to be ignored. Anything else is PeerError("bad-frame")."""
    try:
        return _decode(_MESSAGE, frame)
    except PeerError:
        if _is_foreign(frame):
            return None
        raise


def _decode(decoder: msgspec.msgpack.Decoder[_T], frame: bytes) -> _T:
    if len(frame) > FRAME_BYTES_MAX:
        raise PeerError(f"frame of {len(frame)} bytes (at most {FRAME_BYTES_MAX})", code="bad-frame")
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, InputError, ValueError, RecursionError) as error:
        raise PeerError(f"frame does not decode: {error}", code="bad-frame") from None


def _is_foreign(frame: bytes) -> bool:
    """Whether it has the form of a message - an array that begins with a name - and the name is none of ours."""
    if len(frame) > FRAME_BYTES_MAX:
        return False
    try:
        items = _ITEMS.decode(frame)
        return bool(items) and msgspec.msgpack.decode(items[0], type=str) not in _NAMES
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
