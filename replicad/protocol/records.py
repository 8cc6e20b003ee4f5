"""Records in and out of their bytes: verify first, then parse, and accept one spelling only.

A payload is deterministic JSON: UTF-8, object keys in the order of their code points, no spaces, only the escapes JSON demands, integers of 64 bits and no other numbers, at most
``DEPTH_MAX`` levels. Header and body fields stand side by side; fields this version does not know are allowed and stay in the bytes. Everything that can be judged from one record alone is
judged here (RecordError with a stable code); whether it *counts* is for ``trust``, where it belongs for ``chains``. The bounds are part of the protocol: a record refused here is refused by every
node of every version, for otherwise a chain would end in different places.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from replicad.crypto import envelope as envelopes
from replicad.crypto.hashing import EMPTY
from replicad.errors import InputError, RecordError
from replicad.model import access, paths, redirects
from replicad.model.ids import NETWORK_SHARE, NodeId, RecordId, check_share_name, check_stage_name, from_wire, to_text
from replicad.model.manifest import Manifest
from replicad.model.records import BODIES, NETWORK_TYPES, PAYLOAD_BYTES_MAX, Body, Cut, Entry, Envelope, Grant, Header, Policy, Record, Tombstone, Unknown

DEPTH_MAX = 8
INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 63) - 1
TYPE_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")

_CANONICAL = msgspec.json.Encoder(order="sorted", enc_hook=to_text)
_HEADER = msgspec.json.Decoder(Header, dec_hook=from_wire)
_BODY: dict[str, msgspec.json.Decoder[Any]] = {name: msgspec.json.Decoder(type_, dec_hook=from_wire) for name, type_ in BODIES.items()}
_UNKNOWN = Unknown()
_UNREADABLE = (msgspec.DecodeError, InputError, ValueError, RecursionError)


class _Flat(NamedTuple):
    """Header and body side by side, as in the payload: one pass each way. ``header`` and ``body`` take their fields out of it."""

    decoder: msgspec.json.Decoder[Any]
    header: Callable[[Any], tuple[Any, ...]]
    body: Callable[[Any], tuple[Any, ...]]


def _flat(name: str, body: type[msgspec.Struct]) -> _Flat:
    fields = [*msgspec.structs.fields(Header), *msgspec.structs.fields(body)]
    flat = msgspec.defstruct(name, [(field.name, field.type, field.default) for field in fields], kw_only=True, frozen=True)
    header, rest = (attrgetter(*kind.__struct_fields__) for kind in (Header, body))
    return _Flat(msgspec.json.Decoder(flat, dec_hook=from_wire), header, rest)


_FLAT = {name: _flat(name, type_) for name, type_ in BODIES.items()}


def encode(header: Header, body: Body) -> bytes:
    """The payload of a new record. RecordError if the result would not be accepted by ``parse``, so nothing unacceptable is ever signed."""
    payload = _CANONICAL.encode(_fields(header) | _fields(body))
    _check_size(payload)
    _check_header(header, type_of(body))
    _check_body(body)
    return payload


def type_of(body: Body) -> str:
    """The record type of a body that this version can author; RecordError for ``Unknown``."""
    for name, kind in BODIES.items():
        if type(body) is kind:
            return name
    raise RecordError("a record of unknown type cannot be authored", code="bad-type")


def parse(envelope: Envelope, network: NodeId) -> Record:
    """Verify and parse: the only way from a stranger's bytes to a ``Record``. SignatureError or RecordError. About 80 microseconds, nearly all of it the signature."""
    record_id = envelopes.verify(envelope, network)
    _check_size(envelope.payload)
    record = _if_plain(envelope, record_id) or _if_canonical(envelope, record_id)
    if record.header.origin != envelope.key:
        raise RecordError("the origin is not the key that signed", code="bad-origin")
    _check_header(record.header, envelope.type)
    _check_body(record.body)
    return record


def _if_plain(envelope: Envelope, record_id: RecordId) -> Record | None:
    """The record if its payload is, byte for byte, what this version would write for these values: nearly all are, and then it is canonical. Costs a quarter of the long way."""
    flat = _FLAT.get(envelope.type)
    if flat is None:
        return None
    try:
        fields = flat.decoder.decode(envelope.payload)
    except _UNREADABLE:
        return None
    if _CANONICAL.encode(fields) != envelope.payload:
        return None
    return Record(envelope, record_id, Header(*flat.header(fields)), BODIES[envelope.type](*flat.body(fields)))


def _if_canonical(envelope: Envelope, record_id: RecordId) -> Record:
    """The record if its payload is canonical, with fields that this version does not know or without optional ones. RecordError says what is wrong."""
    fields = _canonical_object(envelope.payload)
    record = restore(envelope, record_id)
    _check_spelling(fields, record)
    return record


def restore(envelope: Envelope, record_id: RecordId) -> Record:
    """A record from bytes that ``parse`` accepted before (our own database): types only, no signature, no rules. RecordError if even that fails. A few microseconds."""
    try:
        header = _HEADER.decode(envelope.payload)
        body = _BODY[envelope.type].decode(envelope.payload) if envelope.type in _BODY else _UNKNOWN
    except _UNREADABLE as error:
        raise RecordError(f"{envelope.type} record: {error}", code="bad-record") from None
    return Record(envelope, record_id, header, body)


def _canonical_object(payload: bytes) -> dict[str, Any]:
    """The payload as plain values, if these bytes are the one canonical spelling of an object."""
    try:
        fields = msgspec.json.decode(payload)
        spelled = _CANONICAL.encode(fields)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RecordError(f"the payload is not JSON: {error}", code="bad-json") from None
    if type(fields) is not dict:
        raise RecordError("the payload is not a JSON object", code="bad-json")
    _check_values(fields, DEPTH_MAX)
    if spelled != payload:
        raise RecordError("the payload is not canonical JSON", code="not-canonical")
    return fields


def _check_values(value: Any, levels: int) -> None:
    kind = type(value)
    if kind is float:
        raise RecordError("a payload has no floating-point numbers", code="bad-number")
    if kind is int and not INTEGER_MIN <= value <= INTEGER_MAX:
        raise RecordError("an integer of the payload has more than 64 bits", code="bad-number")
    if kind is dict or kind is list:
        if not levels:
            raise RecordError(f"the payload is nested more than {DEPTH_MAX} levels deep", code="too-deep")
        for item in value.values() if kind is dict else value:
            _check_values(item, levels - 1)


def _fields(part: Header | Body) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(part, enc_hook=to_text, str_keys=True)
    return fields


def _check_spelling(fields: dict[str, Any], record: Record) -> None:
    """Identifiers have one text form: what the typed values would be written as is what stands there (absent optional fields aside)."""
    known = _fields(record.header) | _fields(record.body)
    expected = {name: value for name, value in known.items() if name in fields}
    if _CANONICAL.encode(expected) != _CANONICAL.encode({name: fields[name] for name in expected}):
        raise RecordError("an identifier is not in its canonical form", code="not-canonical")


def _check_size(payload: bytes) -> None:
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise RecordError(f"payload of {len(payload)} bytes, at most {PAYLOAD_BYTES_MAX}", code="too-big")


def _check_header(header: Header, type_: str) -> None:
    if not TYPE_NAME.fullmatch(type_):
        raise RecordError(f"record type {type_[:40]!a}: 1 to 32 of a-z 0-9 - expected, starting with a letter", code="bad-type")
    if type_ in BODIES and (header.share == NETWORK_SHARE) != (type_ in NETWORK_TYPES):
        raise RecordError(f"a record of type {type_} does not belong in share {header.share!r}", code="wrong-share")
    if (header.seq == 1) != (header.prev is None):
        raise RecordError("exactly the first record of a chain (seq 1) has no predecessor", code="bad-seq")
    _names(header.share, check=_check_share)


def _check_body(body: Body) -> None:
    if isinstance(body, Entry | Tombstone):
        _check_path(body.path)
        _names(*body.stages, check=check_stage_name)
    if isinstance(body, Entry):
        _check_content(body)
    elif isinstance(body, Grant):
        _check_grant(body)
    elif isinstance(body, Policy):
        _names(body.name, check=check_share_name)
        _names(*body.stages, check=check_stage_name)
        if body.root:
            _check_path(body.root)
        _check_access(body)
    elif isinstance(body, Cut):
        _names(*body.ends, check=_check_share)


def _check_access(policy: Policy) -> None:
    try:
        if policy.access is not msgspec.UNSET:
            access.check(policy.access)
        if policy.redirects is not msgspec.UNSET:
            redirects.check(policy.redirects)
    except InputError as error:
        raise RecordError(error.message, code="bad-access") from None


def _check_grant(grant: Grant) -> None:
    if grant.networks is not msgspec.UNSET:
        _check_networks(grant.networks)
    _names(*grant.shares or (), check=check_share_name)
    _names(*grant.stages or (), check=check_stage_name)
    for prefix in grant.paths or ():
        _check_path(prefix)
        if paths.key(prefix) != prefix:
            raise RecordError(f"path prefix {prefix[:80]!r} is not a collision key", code="bad-path")


def _check_networks(networks: Sequence[str]) -> None:
    try:
        access.check_canonical(networks)
    except InputError as error:
        raise RecordError(error.message, code="bad-network") from None
    if not networks:
        raise RecordError("a grant without networks has no such field", code="bad-network")


def _check_content(entry: Entry) -> None:
    """Content of at most one chunk has exactly one manifest, and there is exactly one empty content."""
    if Manifest.implied_id(entry.content, entry.size) not in (None, entry.manifest):
        raise RecordError("the manifest is not the one that follows from content and size", code="bad-manifest")
    if (entry.size == 0) != (entry.content == EMPTY):
        raise RecordError("size 0 and the digest of nothing belong together", code="bad-content")


def _check_path(path: str) -> None:
    try:
        paths.check(path)
    except InputError as error:
        raise RecordError(error.message, code="bad-path") from None


def _check_share(name: str) -> str:
    return name and check_share_name(name)


def _names(*names: str, check: Any) -> None:
    """Each name is legal and none stands twice."""
    try:
        for name in names:
            check(name)
    except InputError as error:
        raise RecordError(error.message, code="bad-name") from None
    if len(set(names)) != len(names):
        raise RecordError(f"a name stands twice in {', '.join(names)[:200]}", code="bad-name")
