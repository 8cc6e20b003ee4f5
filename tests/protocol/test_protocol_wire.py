"""The wire format of version 1, byte for byte, and what an older node does with what a newer one says.

``wire_version_1.json`` holds one frame of every message, and a head's payload. What stands there is never changed: a version that says something else gets a file of its own. Frames with items that were added at
the end of a message since (``LONGER``) stand beside the first ones.
``python tests/protocol/test_protocol_wire.py`` prints the frames of the values below.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import PeerError
from replicad.model.ids import Digest, NodeId, RecordId, Stamp, from_wire, to_text
from replicad.model.records import Envelope
from replicad.protocol import wire
from replicad.protocol.gossip.heads import Head, HeadEnd, Missing, Presence

GOLDEN = Path(__file__).with_name("wire_version_1.json")

NODE, OTHER = NodeId(bytes([0x0A]) * 32), NodeId(bytes([0x0B]) * 32)
RECORD = RecordId(bytes([0x1A]) * 32)
CONTENT, MANIFEST = Digest(bytes([0x2A]) * 32), Digest(bytes([0x2B]) * 32)
KEY, NONCE, SIGNATURE = (bytes([byte]) * size for byte, size in ((0x3A, 32), (0x3B, 32), (0x3C, 64)))
INCARNATION, HLC = Stamp.of(1_800_000_000_000, 0x1234), Stamp.of(1_800_000_000_500)
ENVELOPE = Envelope("entry", b'{"path":"a"}', NODE, SIGNATURE)

VALUES: dict[str, wire.Handshake | wire.Message] = {
    "hello": wire.ClientHello(1, 1, OTHER, NODE, KEY, NONCE, CONTENT),
    "hello without TLS": wire.ClientHello(1, 3, OTHER, NODE, KEY, NONCE, b""),
    "welcome": wire.ServerHello(1, NODE, KEY, NONCE, CONTENT, SIGNATURE),
    "finish": wire.Finish(SIGNATURE),
    "ping": wire.Ping(1),
    "pong": wire.Pong((1 << 63) - 1),
    "renew offer": wire.Renew(0, KEY, NONCE),
    "renew done": wire.Renew(2),
    "records as news": wire.Records((ENVELOPE,)),
    "records in answer": wire.Records((ENVELOPE, ENVELOPE), 7, more=True),
    "heads": wire.Heads((Envelope("head", b"{}", NODE, SIGNATURE),), (3,)),
    "eager no": wire.Eager((NODE, OTHER), wanted=False),
    "eager all": wire.Eager((), wanted=True),
    "compare": wire.Compare({"": CONTENT, "munki": MANIFEST}),
    "compare whole": wire.Compare({"munki": MANIFEST}, whole=True),
    "compared": wire.Compared(("",), ("munki",)),
    "frontier": wire.Frontier("munki", {NODE: (wire.End(INCARNATION, 9, RECORD),)}),
    "frontier part": wire.Frontier("munki", {NODE: (wire.End(INCARNATION, 9, RECORD),)}, whole=True, reply=True, after=bytes(NODE), until=bytes(OTHER)),
    "pull": wire.Pull(7, "munki", NODE, {INCARNATION: 9}),
    "interest": wire.Interest(CONTENT, MANIFEST),
    "interest over": wire.Interest(CONTENT, MANIFEST, active=False),
    "have": wire.Have(CONTENT, MANIFEST, b"\x05", complete=False),
    "have all": wire.Have(CONTENT, MANIFEST, b"", complete=True),
    "more": wire.HaveMore(CONTENT, MANIFEST, (1, 2, 4095), (2,)),
    "seek": wire.Seek((wire.Small(CONTENT, 5),)),
    "hold no more": wire.Hold((wire.Small(CONTENT, 1 << 20),), held=False),
    "send": wire.Send(3, CONTENT, MANIFEST, 4095, 16),
    "sendmany": wire.SendMany(3, (wire.Small(CONTENT, 5),)),
    "sendmany patiently": wire.SendMany(3, (wire.Small(CONTENT, 5),), patient=True),
    "unsent": wire.Unsent(3, "busy"),
    "relay": wire.Relay(1, b"\x93"),
    "relayed": wire.Relayed(1, 403, "used-token", "this token was used"),
    "fault": wire.Fault("duplicate", "another link is used"),
}
HEAD = Head(
    node=NODE,
    share="",
    incarnation=INCARNATION,
    counter=4,
    made_ms=1_800_000_000_500,
    interval_ms=30_000,
    frontier=CONTENT,
    ends=(HeadEnd(NODE, INCARNATION, 9, HLC),),
    ends_whole=False,
    missing=(Missing(CONTENT, 42),),
    missing_count=2,
    missing_bytes=10,
    missing_since=HLC,
    presence=Presence(("https://a:8440",), CONTENT, 1, 1, "0.1.0", 10, 20, 30, (OTHER,)),
)
HEAD_NAME = "head payload"
LONGER = {"sendmany": 1}
"""How many items this version says that the frame does not have."""


def decoded(frame: bytes) -> wire.Handshake | wire.Message | None:
    """By whichever decoder knows the name."""
    name = msgspec.msgpack.decode(frame)[0]
    return wire.decode_handshake(frame) if name in {"hello", "welcome", "finish"} else wire.decode(frame)


def written() -> dict[str, str]:
    """Everything, as it is said now."""
    head = msgspec.json.encode(HEAD, enc_hook=to_text, order="sorted").decode()
    return {name: wire.encode(value).hex() for name, value in VALUES.items()} | {HEAD_NAME: head}


@pytest.fixture(scope="module")
def golden() -> dict[str, str]:
    found: dict[str, str] = json.loads(GOLDEN.read_text())
    return found


def test_every_message_has_a_golden_frame(golden: dict[str, str]) -> None:
    assert {type(value) for value in VALUES.values()} == {*get_args(wire.Handshake), *get_args(wire.Message)}
    assert golden.keys() == {*VALUES, HEAD_NAME}


@pytest.mark.parametrize("name", VALUES)
def test_golden_frames_mean_and_spell_the_same_for_ever(golden: dict[str, str], name: str) -> None:
    frame = bytes.fromhex(golden[name])
    assert decoded(frame) == VALUES[name]
    said, more = wire.encode(VALUES[name]), LONGER.get(name, 0)
    assert said[0] == frame[0] + more, "the number of items"
    assert said[1 : len(frame)] == frame[1:]
    assert len(said) == len(frame) + more, "one byte each"


def test_the_golden_head_means_the_same_for_ever(golden: dict[str, str]) -> None:
    assert msgspec.json.decode(golden[HEAD_NAME], type=Head, dec_hook=from_wire) == HEAD
    assert written()[HEAD_NAME] == golden[HEAD_NAME]


# -- what a newer version may add --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VALUES)
def test_items_that_a_newer_version_adds_are_ignored(name: str) -> None:
    frame = wire.encode(VALUES[name])
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(frame), {"new": [1, None, b"x"]}, 2.5])
    assert decoded(longer) == VALUES[name]


def test_items_with_a_default_may_be_absent_as_in_an_older_version() -> None:
    assert wire.decode(msgspec.msgpack.encode(["compared", ["munki"]])) == wire.Compared(("munki",), ())
    assert wire.decode(msgspec.msgpack.encode(["records", []])) == wire.Records((), 0, more=False)
    assert wire.decode(msgspec.msgpack.encode(["frontier", "munki", {}])) == wire.Frontier("munki", {})
    with pytest.raises(PeerError):
        wire.decode(msgspec.msgpack.encode(["pull", 1, "munki"]))


@given(st.text(max_size=40).filter(lambda name: name not in wire._NAMES), st.lists(st.none() | st.integers(0, 9) | st.binary(max_size=9) | st.text(max_size=9)))
def test_messages_of_other_names_are_ignored(name: str, items: list[object]) -> None:
    assert wire.decode(msgspec.msgpack.encode([name, *items])) is None


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        *map(msgspec.msgpack.encode, ([], {"ping": 1}, "ping", [1, "ping"], ["ping", -1], ["new", bytes(wire.FRAME_BYTES_MAX)])),
        msgspec.msgpack.encode(["pull", 1, "munki", 5, {}]),
        b"\x92\xa4ping\x01\x00",
    ],
    ids=["nothing", "no msgpack", "no name", "map", "text", "number first", "out of bounds", "too long", "a number as id", "something behind"],
)
def test_what_is_no_message_is_an_offence(frame: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        wire.decode(frame)
    assert caught.value.error_code == "bad-frame"


if __name__ == "__main__":
    print(json.dumps(written(), indent=1))  # noqa: T201
