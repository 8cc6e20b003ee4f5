"""Records: golden bytes, every refusal by name, and the round trip."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_world import entry_body, signing_key

from replicad.crypto import envelope as envelopes
from replicad.crypto.hashing import EMPTY, sha256
from replicad.errors import RecordError, SignatureError
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.manifest import Manifest
from replicad.model.records import Cut, Entry, Envelope, Grant, Header, Policy, Record, Role, Takedown, Tombstone, Unknown
from replicad.protocol import records

KEY = signing_key("author")
NETWORK = signing_key("network").id
OTHER = signing_key("other").id
HEADER = Header(KEY.id, "munki", Stamp.of(1000, 7), 2, RecordId(bytes(range(32))), Stamp.of(2000, 1))
NETWORK_HEADER = msgspec.structs.replace(HEADER, share="")
ENTRY = entry_body("pkgs/Gr\u00fcn.pkg")


def sealed(type_: str, payload: bytes) -> Envelope:
    return envelopes.seal(KEY, NETWORK, type_, payload)


def fields_of(header: Header, body: Any) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(records.encode(header, body))
    return fields


def spelled(fields: Any) -> bytes:
    """Canonical JSON by another implementation: Python's own."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def refusal(type_: str, payload: bytes) -> str:
    with pytest.raises(RecordError) as refused:
        records.parse(sealed(type_, payload), NETWORK)
    return refused.value.error_code


BODIES: dict[str, tuple[Header, Any]] = {
    "entry": (HEADER, ENTRY),
    "tombstone": (HEADER, Tombstone("pkgs/old", "prod", "jane", (RecordId(bytes(32)),))),
    "grant": (
        NETWORK_HEADER,
        Grant(OTHER, "ber1", Role.PUBLISHER, "berlin", ("munki",), ("apps/gr\u00fcn",), ("dev", "prod"), Stamp.of(9000), Digest(bytes(32))),
    ),
    "cut": (NETWORK_HEADER, Cut(OTHER, {"": (RecordId(bytes(32)),), "munki": ()}, "revoke")),
    "policy": (NETWORK_HEADER, Policy("munki", public=True, immutable=True)),
    "takedown": (NETWORK_HEADER, Takedown(Digest(bytes(32)), reason="licence")),
}


# --- Golden bytes of format 1 ---


def test_the_pinned_payload() -> None:
    header = Header(NodeId(bytes(range(32))), "munki", Stamp(1), 1, None, Stamp(0x10002))
    assert records.encode(header, Tombstone("a/é", "prod", '"jane"')) == (
        b'{"hlc":"0000000000010002","incarnation":"0000000000000001","origin":"AAAQ-EAYE-AUDA-OCAJ-BIFQ-YDIO-B4IB-CEQT-CQKR-MFYY-DENB-WHA5-DYPQ",'
        b'"path":"a/\xc3\xa9","prev":null,"publisher":"\\"jane\\"","seq":1,"share":"munki","stage":"prod","supersedes":[]}'
    )


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("entry", "59bb80331fa2070f1244c25191f12a144cec62694e94031a8239e60a37930684"),
        ("tombstone", "f0f5cd9c0a1e355d1c90f230e629f34ea87069c1f79899818f61b773f5fe613b"),
        ("grant", "9d8de6030d777267de6ff43ff3afe085fc005c0045ff43aefee2d9faa69d307e"),
        ("cut", "054ea2976763da749a5ad7b7306d76260b43db4e6843d9e56e7584b9405917dc"),
        ("policy", "15d55db026138ee747b8d96ef8fe6de34cddc0c3a83732072d16000a9851ff36"),
    ],
)
def test_the_pinned_id(type_: str, expected: str) -> None:
    """One record of each type: an id that changes here splits every network."""
    header, body = BODIES[type_]
    assert envelopes.record_id(NETWORK, type_, records.encode(header, body)).hex() == expected


# --- Round trip ---


@pytest.mark.parametrize("type_", BODIES)
def test_what_was_encoded_is_parsed(type_: str) -> None:
    header, body = BODIES[type_]
    payload = records.encode(header, body)
    record = records.parse(sealed(type_, payload), NETWORK)
    assert (record.header, record.body) == (header, body)
    assert record.id == envelopes.record_id(NETWORK, type_, payload)
    assert records.type_of(body) == type_
    assert records.restore(record.envelope, record.id) == record
    assert payload == spelled(json.loads(payload))


LABELS = st.text(st.characters(codec="utf-8"), max_size=20)
DIGESTS = st.binary(min_size=32, max_size=32)
STAMPS = st.integers(0, 2**63 - 1).map(Stamp)
SHARES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True)
STAGES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,10}", fullmatch=True)
HEADERS = st.builds(
    lambda incarnation, seq, prev, hlc, share: Header(KEY.id, share, incarnation, seq, prev if seq > 1 else None, hlc),
    STAMPS, st.integers(1, 2**63 - 1), DIGESTS.map(RecordId), STAMPS, SHARES,
)  # fmt: skip
TOMBSTONES = st.builds(Tombstone, st.just("a"), STAGES, LABELS, st.lists(DIGESTS.map(RecordId), max_size=3).map(tuple))
GRANTS = st.builds(
    Grant,
    DIGESTS.map(NodeId), LABELS.filter(bool), st.sampled_from(Role), LABELS, st.none() | st.lists(SHARES, unique=True, max_size=3).map(tuple),
    st.none() | st.just(("a", "a/b")), st.none() | st.lists(STAGES, unique=True, min_size=1, max_size=3).map(tuple), st.none() | STAMPS, st.none() | DIGESTS.map(Digest),
)  # fmt: skip
CUTS = st.builds(
    Cut, DIGESTS.map(NodeId), st.dictionaries(SHARES | st.just(""), st.lists(DIGESTS.map(RecordId), max_size=3).map(tuple), max_size=3), st.just("remove")
)


@settings(max_examples=100, deadline=None)
@given(HEADERS, TOMBSTONES | GRANTS | CUTS)
def test_any_record_survives_the_round_trip(header: Header, body: Tombstone | Grant | Cut) -> None:
    if not isinstance(body, Tombstone):
        header = msgspec.structs.replace(header, share="")
    payload = records.encode(header, body)
    record = records.parse(sealed(records.type_of(body), payload), NETWORK)
    assert (record.header, record.body) == (header, body)
    assert payload == spelled(json.loads(payload))
    assert records.encode(record.header, record.body) == payload


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | LABELS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LABELS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(LABELS.map(lambda name: f"x-{name}"), JSON, max_size=3))
def test_unknown_fields_are_kept_in_the_bytes(unknown: dict[str, Any]) -> None:
    payload = spelled(fields_of(HEADER, ENTRY) | unknown)
    record = records.parse(sealed("entry", payload), NETWORK)
    assert record.body == ENTRY
    assert json.loads(record.envelope.payload).items() >= unknown.items()


@pytest.mark.parametrize("share", ["munki", ""])
def test_a_record_of_unknown_type_is_kept_in_any_share(share: str) -> None:
    payload = spelled({**fields_of(HEADER, ENTRY), "share": share, "novelty": [1, {"a": None}]})
    record = records.parse(sealed("quorum-2", payload), NETWORK)
    assert record.body == Unknown()
    assert record.header.share == share


def test_optional_fields_may_be_absent() -> None:
    fields = fields_of(*BODIES["policy"])
    record = records.parse(
        sealed("policy", spelled({name: value for name, value in fields.items() if name not in {"stages", "removed", "immutable"}})), NETWORK
    )
    assert record.body == Policy("munki", public=True)


# --- Refusals ---


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        pytest.param(b"", "bad-json", id="empty"),
        pytest.param(b"{", "bad-json", id="cut short"),
        pytest.param(b"[]", "bad-json", id="an array"),
        pytest.param(b'"x"', "bad-json", id="a string"),
        pytest.param(b"\x82\xa1a\x01", "bad-json", id="msgpack"),
        pytest.param(b'{"a":"\xff"}', "bad-json", id="not UTF-8"),
        pytest.param(b'{"a":"\\ud800"}', "bad-json", id="lone surrogate"),
        pytest.param(b'{"a":NaN}', "bad-json", id="NaN"),
        pytest.param(b"[" * 60_000, "bad-json", id="nested 60,000 times"),
        pytest.param(b'{"a":' + b"9" * 60_000 + b"}", "bad-json", id="60,000 digits"),
        pytest.param(b"{}", "bad-record", id="no header"),
    ],
)
def test_garbage(payload: bytes, code: str) -> None:
    assert refusal("entry", payload) == code


GOOD = spelled(fields_of(HEADER, ENTRY))


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b" " + GOOD, id="leading space"),
        pytest.param(GOOD + b"\n", id="trailing newline"),
        pytest.param(GOOD.replace(b'":', b'": ', 1), id="space after a colon"),
        pytest.param(b'{"size":1,' + GOOD[1:].replace(b'"size":1,', b""), id="keys out of order"),
        pytest.param(GOOD.replace(b'"seq":2', b'"seq":2,"seq":2'), id="duplicate key"),
        pytest.param(GOOD.replace(b'"seq":2', b'"seq":1,"seq":2'), id="contradicting duplicate key"),
        pytest.param(GOOD.replace("\u00fc".encode(), b"\\u00fc"), id="needless escape"),
        pytest.param(GOOD.replace(b"/", b"\\/", 1), id="escaped slash"),
        pytest.param(GOOD.replace(b'"size":1', b'"size":-0'), id="minus zero"),
        pytest.param(b"\xef\xbb\xbf" + GOOD, id="byte order mark"),
    ],
)
def test_a_second_spelling(payload: bytes) -> None:
    assert payload != GOOD
    assert refusal("entry", payload) in {"not-canonical", "bad-json"}


def test_keys_are_ordered_by_code_point() -> None:
    """Not by UTF-16 unit, as RFC 8785 has it: U+FFFD comes before U+1F9EA."""
    assert spelled({"\U0001f9ea": 1, "\ufffd": 1}).index(b"\xef") < spelled({"\U0001f9ea": 1, "\ufffd": 1}).index(b"\xf0")
    records.parse(sealed("entry", spelled({**fields_of(HEADER, ENTRY), "x\U0001f9ea": 1, "x\ufffd": 1})), NETWORK)
    other_way = GOOD[:-1] + ',"x\U0001f9ea":1,"x\ufffd":1}'.encode()
    assert refusal("entry", other_way) == "not-canonical"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"x": 1.5}, "bad-number", id="a float"),
        pytest.param({"x": 1e300}, "bad-number", id="a big float"),
        pytest.param({"x": [{"y": [0.5]}]}, "bad-number", id="a float inside"),
        pytest.param({"x": 2**63}, "bad-number", id="more than 64 bits"),
        pytest.param({"x": -(2**63) - 1}, "bad-number", id="less than 64 bits"),
        pytest.param({"x": [[[[[[[[1]]]]]]]]}, "too-deep", id="nine levels"),
        pytest.param({"origin": str(OTHER)}, "bad-origin", id="somebody else's origin"),
        pytest.param({"origin": str(KEY.id).lower()}, "not-canonical", id="origin in lower case"),
        pytest.param({"origin": str(KEY.id).replace("-", "")}, "not-canonical", id="origin without dashes"),
        pytest.param({"origin": KEY.id.hex()}, "bad-record", id="origin in hexadecimal"),
        pytest.param({"origin": 5}, "bad-record", id="origin is a number"),
        pytest.param({"origin": None}, "bad-record", id="no origin, said with null"),
        pytest.param({"manifest": ["0" * 64]}, "bad-record", id="manifest is a list"),
        pytest.param({"hlc": None}, "bad-record", id="no stamp, said with null"),
        pytest.param({"hlc": 5}, "not-canonical", id="a stamp as number"),
        pytest.param({"hlc": "00000000000000FF"}, "bad-record", id="a stamp in upper case"),
        pytest.param({"hlc": "8000000000000000"}, "bad-record", id="a stamp of 64 bits"),
        pytest.param({"incarnation": "1"}, "bad-record", id="a short stamp"),
        pytest.param({"prev": "0" * 63}, "bad-record", id="a short id"),
        pytest.param({"prev": "A" * 64}, "bad-record", id="an id in upper case"),
        pytest.param({"seq": 0}, "bad-record", id="seq 0"),
        pytest.param({"seq": 2**63}, "bad-number", id="seq of 64 bits"),
        pytest.param({"seq": "2"}, "bad-record", id="seq as text"),
        pytest.param({"seq": True}, "bad-record", id="seq as truth"),
        pytest.param({"seq": 1}, "bad-seq", id="first with a predecessor"),
        pytest.param({"prev": None}, "bad-seq", id="second without a predecessor"),
        pytest.param({"share": ""}, "wrong-share", id="an entry among the network's records"),
        pytest.param({"share": "Munki"}, "bad-name", id="share in capitals"),
        pytest.param({"share": "-munki"}, "bad-name", id="share starts with a dash"),
        pytest.param({"share": "x" * 64}, "bad-record", id="long share"),
        pytest.param({"stage": "PROD"}, "bad-name", id="stage in capitals"),
        pytest.param({"source": "PROD"}, "bad-name", id="source in capitals"),
        pytest.param({"source": "prod"}, "bad-name", id="a promotion to where it is"),
        pytest.param({"source": None}, "bad-record", id="no source, said with null"),
        pytest.param({"stage": ""}, "bad-record", id="no stage"),
        pytest.param({"path": "../etc/passwd"}, "bad-path", id="path climbs"),
        pytest.param({"path": "/etc/passwd"}, "bad-path", id="absolute path"),
        pytest.param({"path": "a\u0378"}, "bad-path", id="path of tomorrow's Unicode"),
        pytest.param({"path": ""}, "bad-record", id="no path"),
        pytest.param({"path": 7}, "bad-record", id="path is a number"),
        pytest.param({"size": -1}, "bad-record", id="negative size"),
        pytest.param({"size": (1 << 42) + 1}, "bad-record", id="more than 4 TiB"),
        pytest.param({"size": 2}, "bad-manifest", id="size of another manifest"),
        pytest.param({"manifest": "0" * 64}, "bad-manifest", id="not the implied manifest"),
        pytest.param({"content": str(EMPTY)}, "bad-manifest", id="content of another manifest"),
        pytest.param({"content": "x"}, "bad-record", id="content is no digest"),
        pytest.param({"modified": -1}, "bad-record", id="before 1970"),
        pytest.param({"publisher": "x" * 256}, "bad-record", id="long label"),
        pytest.param({"supersedes": ["0" * 64] * 257}, "bad-record", id="supersedes too many"),
        pytest.param({"supersedes": None}, "bad-record", id="supersedes null"),
    ],
)
def test_a_bad_entry(change: dict[str, Any], code: str) -> None:
    assert refusal("entry", spelled({**fields_of(HEADER, ENTRY), **change})) == code


@pytest.mark.parametrize("missing", ["origin", "share", "incarnation", "seq", "prev", "hlc", "path", "stage", "content", "size", "manifest", "modified"])
def test_a_field_is_missing(missing: str) -> None:
    fields = fields_of(HEADER, ENTRY)
    del fields[missing]
    assert refusal("entry", spelled(fields)) == "bad-record"


@pytest.mark.parametrize(
    ("type_", "change", "code"),
    [
        pytest.param("grant", {"share": "munki"}, "wrong-share", id="a grant in a share"),
        pytest.param("cut", {"share": "munki"}, "wrong-share", id="a cut in a share"),
        pytest.param("policy", {"share": "munki"}, "wrong-share", id="a policy in a share"),
        pytest.param("takedown", {"share": "munki"}, "wrong-share", id="a takedown in a share"),
        pytest.param("tombstone", {"share": ""}, "wrong-share", id="a tombstone outside"),
        pytest.param("tombstone", {"path": "a//b"}, "bad-path", id="a tombstone's path"),
        pytest.param("tombstone", {"stage": "a b"}, "bad-name", id="a tombstone's stage"),
        pytest.param("grant", {"role": "owner"}, "bad-record", id="unknown role"),
        pytest.param("grant", {"role": None}, "bad-record", id="no role"),
        pytest.param("grant", {"name": ""}, "bad-record", id="no name"),
        pytest.param("grant", {"name": "x" * 64}, "bad-record", id="long name"),
        pytest.param("grant", {"subject": str(OTHER).lower()}, "not-canonical", id="subject in lower case"),
        pytest.param("grant", {"shares": ["munki", "Jamf"]}, "bad-name", id="a granted share's name"),
        pytest.param("grant", {"shares": ["munki", "munki"]}, "bad-name", id="a share twice"),
        pytest.param("grant", {"shares": [""]}, "bad-record", id="the network's records granted as share"),
        pytest.param("grant", {"stages": []}, "bad-record", id="no stage at all"),
        pytest.param("grant", {"stages": ["dev", "dev"]}, "bad-name", id="a stage twice"),
        pytest.param("grant", {"paths": ["Apps"]}, "bad-path", id="a prefix that is no collision key"),
        pytest.param("grant", {"paths": ["u\u0308"]}, "bad-path", id="a prefix in decomposed form"),
        pytest.param("grant", {"paths": ["a/"]}, "bad-path", id="a prefix that is no path"),
        pytest.param("grant", {"networks": []}, "bad-network", id="networks, none"),
        pytest.param("grant", {"networks": None}, "bad-record", id="networks, null"),
        pytest.param("grant", {"networks": ["10.4.0.1"]}, "bad-network", id="networks, one not in its canonical form"),
        pytest.param("grant", {"networks": ["everybody"]}, "bad-network", id="networks, one that is none"),
        pytest.param("grant", {"networks": [f"10.{n}.0.0/16" for n in range(65)]}, "bad-record", id="networks, too many"),
        pytest.param("grant", {"until": 5}, "not-canonical", id="until as number"),
        pytest.param("policy", {"layout": "munki", "root": "a//b"}, "bad-path", id="a directory that is no path"),
        pytest.param("cut", {"reason": "revenge"}, "bad-record", id="unknown reason"),
        pytest.param("cut", {"ends": {"Munki": []}}, "bad-name", id="ends of an impossible share"),
        pytest.param("cut", {"ends": {"munki": ["0" * 64] * 513}}, "bad-record", id="too many ends"),
        pytest.param("cut", {"ends": []}, "bad-record", id="ends are a list"),
        pytest.param("policy", {"name": "a b"}, "bad-name", id="a share's name"),
        pytest.param("policy", {"public": 1}, "bad-record", id="truth as number"),
        pytest.param("policy", {"stages": ["dev", "dev"]}, "bad-name", id="a share's stage twice"),
        pytest.param("policy", {"redirects": {"10.4.0.1": "here"}}, "bad-access", id="redirects, a network not in its canonical form"),
        pytest.param("policy", {"redirects": {"any": "https://cdn.example.org/"}}, "bad-access", id="redirects, a URL not in its canonical form"),
        pytest.param("policy", {"redirects": {"any": "https://cdn.example.org/\r\nX-A:b"}}, "bad-access", id="redirects, a line end in a URL"),
        pytest.param("policy", {"redirects": {"any": "javascript://x"}}, "bad-access", id="redirects, another scheme"),
        pytest.param("policy", {"redirects": {"any": "https://" + "a" * 500}}, "bad-record", id="redirects, a long URL"),
        pytest.param("policy", {"redirects": {f"10.{n}.0.0/16": "here" for n in range(17)}}, "bad-record", id="redirects, too many"),
        pytest.param("policy", {"redirects": None}, "bad-record", id="redirects, null"),
        pytest.param("policy", {"stages": [f"s{number}" for number in range(17)]}, "bad-record", id="too many stages"),
        pytest.param("Entry", {}, "bad-type", id="type in capitals"),
        pytest.param("2fast", {}, "bad-type", id="type starts with a digit"),
        pytest.param("a b", {}, "bad-type", id="type with a space"),
    ],
)
def test_a_bad_record_of_another_type(type_: str, change: dict[str, Any], code: str) -> None:
    header, body = BODIES.get(type_, BODIES["tombstone"])
    assert refusal(type_, spelled({**fields_of(header, body), **change})) == code


def test_a_type_is_not_mistaken_for_another() -> None:
    assert refusal("grant", spelled(fields_of(HEADER, ENTRY))) == "bad-record"


def test_content_of_several_chunks_may_have_any_manifest() -> None:
    big = msgspec.structs.replace(ENTRY, size=1 << 21, manifest=Digest(bytes(32)))
    assert records.parse(sealed("entry", records.encode(HEADER, big)), NETWORK).body == big


def test_empty_content_is_the_empty_content() -> None:
    def claim(content: Digest, size: int) -> bytes:
        implied = Manifest.implied(content, size)
        assert implied
        return spelled({**fields_of(HEADER, ENTRY), "content": str(content), "size": size, "manifest": str(implied.id)})

    body = records.parse(sealed("entry", claim(EMPTY, 0)), NETWORK).body
    assert isinstance(body, Entry)
    assert body.size == 0
    assert refusal("entry", claim(sha256(b"x"), 0)) == "bad-content"
    assert refusal("entry", claim(EMPTY, 1)) == "bad-content"


def test_the_signature_is_checked_before_anything_else() -> None:
    with pytest.raises(SignatureError):
        records.parse(Envelope("entry", b"\xff" * 100, KEY.id, bytes(64)), NETWORK)


def test_a_payload_at_and_beyond_the_bound() -> None:
    fields = fields_of(HEADER, ENTRY)
    room = 65536 - len(spelled({**fields, "x": ""}))
    records.parse(sealed("entry", spelled({**fields, "x": "y" * room})), NETWORK)
    beyond = spelled({**fields, "x": "y" * (room + 1)})
    signature = KEY.sign(envelopes.signed_bytes(NETWORK, "entry", beyond))
    with pytest.raises(SignatureError, match="65537 bytes"):
        records.parse(Envelope("entry", beyond, KEY.id, signature), NETWORK)


@pytest.mark.parametrize(
    ("header", "body", "code"),
    [
        pytest.param(HEADER, Tombstone("../a", "prod"), "bad-path", id="path"),
        pytest.param(NETWORK_HEADER, Tombstone("a", "prod"), "wrong-share", id="share"),
        pytest.param(msgspec.structs.replace(HEADER, prev=None), Tombstone("a", "prod"), "bad-seq", id="seq"),
        pytest.param(NETWORK_HEADER, Cut(OTHER, {f"s{number}": (RecordId(bytes(32)),) * 100 for number in range(20)}, "remove"), "too-big", id="size"),
        pytest.param(HEADER, Unknown(), "bad-type", id="unknown type"),
    ],
)
def test_nothing_unacceptable_is_ever_encoded(header: Header, body: Any, code: str) -> None:
    with pytest.raises(RecordError) as refused:
        records.encode(header, body)
    assert refused.value.error_code == code


def test_the_order_of_records_is_clock_then_id() -> None:
    one = records.parse(sealed("entry", GOOD), NETWORK)
    assert isinstance(one, Record)
    assert one.order == (HEADER.hlc, one.id)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | JSON.map(spelled), st.sampled_from([*BODIES, "novelty"]))
def test_any_payload_is_parsed_or_refused(payload: bytes, type_: str) -> None:
    assert refusal(type_, payload) in {"bad-json", "bad-number", "too-deep", "not-canonical", "bad-record"}
