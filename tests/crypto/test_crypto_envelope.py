"""Envelopes: the exact bytes, and that a signature is good for nothing else."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.crypto import envelope as envelopes
from replicad.crypto.hashing import EMPTY, sha256
from replicad.crypto.keys import SigningKey
from replicad.errors import SignatureError
from replicad.model.ids import NodeId
from replicad.model.records import PAYLOAD_BYTES_MAX, Envelope

KEY = SigningKey(bytes(range(32)))
NETWORK = NodeId(bytes(range(100, 132)))
FIELDS = st.tuples(st.binary(min_size=32, max_size=32).map(NodeId), st.text(min_size=1, max_size=8), st.binary(max_size=64))


def test_the_signed_bytes() -> None:
    assert envelopes.signed_bytes(NETWORK, "entry", b"{}") == b"replicad/1 32 " + bytes(range(100, 132)) + b" 5 entry 2 {}"
    assert envelopes.signed_bytes(NETWORK, "é", b"") == b"replicad/1 32 " + bytes(range(100, 132)) + b" 2 \xc3\xa9 0 "


def test_the_pinned_record() -> None:
    """Golden bytes of format 1: an id or a signature that changes here splits every network."""
    sealed = envelopes.seal(KEY, NETWORK, "entry", b'{"a":1}')
    assert envelopes.record_id(NETWORK, "entry", b'{"a":1}').hex() == "41b8745016e9480a378cbde1f487625cc5e146424cfd117dc3ae2b07c5a73292"
    assert sealed.signature.hex() == (
        "7d5c9502478172cc927cf632768bfcc6864d04ec29b5681bf5cacb722cf362bab77cd41d4a760f3b7fbce7f0475a3ca64bbf70420d198b62fa50b8acc56ade09"
    )


def test_the_id_is_the_hash_of_what_was_signed() -> None:
    sealed = envelopes.seal(KEY, NETWORK, "entry", b"{}")
    expected = hashlib.sha256(envelopes.signed_bytes(NETWORK, "entry", b"{}")).digest()
    assert envelopes.verify(sealed, NETWORK) == envelopes.record_id(NETWORK, "entry", b"{}") == expected


@given(FIELDS, FIELDS)
def test_no_two_statements_have_the_same_signed_bytes(one: tuple[NodeId, str, bytes], other: tuple[NodeId, str, bytes]) -> None:
    assert (envelopes.signed_bytes(*one) == envelopes.signed_bytes(*other)) == (one == other)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"type": "tombstone"}, id="another type"),
        pytest.param({"payload": b'{"a":2}'}, id="another payload"),
        pytest.param({"key": SigningKey(bytes(32)).id}, id="another key"),
        pytest.param({"signature": bytes(64)}, id="no signature"),
        pytest.param({"type": "entry 7", "payload": b""}, id="shifted border"),
    ],
)
def test_a_signature_holds_for_nothing_else(change: dict[str, object]) -> None:
    sealed = envelopes.seal(KEY, NETWORK, "entry", b'{"a":1}')
    with pytest.raises(SignatureError):
        envelopes.verify(msgspec.structs.replace(sealed, **change), NETWORK)


def test_a_signature_holds_in_its_network_only() -> None:
    sealed = envelopes.seal(KEY, NETWORK, "entry", b'{"a":1}')
    with pytest.raises(SignatureError):
        envelopes.verify(sealed, KEY.id)


@pytest.mark.parametrize(
    ("type_", "payload", "message"),
    [
        ("", b"", "1 to 32 bytes"),
        ("x" * 33, b"", "1 to 32 bytes"),
        ("é" * 17, b"", "1 to 32 bytes"),
        ("entry", bytes(PAYLOAD_BYTES_MAX + 1), "at most 65536"),
    ],
)
def test_bounds_hold_on_both_sides(type_: str, payload: bytes, message: str) -> None:
    with pytest.raises(SignatureError, match=message):
        envelopes.seal(KEY, NETWORK, type_, payload)
    signature = KEY.sign(envelopes.signed_bytes(NETWORK, type_, payload))
    with pytest.raises(SignatureError, match=message):
        envelopes.verify(Envelope(type_, payload, KEY.id, signature), NETWORK)


def test_the_greatest_payload_is_accepted() -> None:
    envelopes.verify(envelopes.seal(KEY, NETWORK, "x" * 32, bytes(PAYLOAD_BYTES_MAX)), NETWORK)


@given(st.binary(max_size=4096))
def test_sha256_is_that_of_the_library(message: bytes) -> None:
    assert sha256(message) == sha256(bytearray(message)) == sha256(memoryview(message)) == hashlib.sha256(message).digest()


def test_empty() -> None:
    assert sha256(b"") == EMPTY
