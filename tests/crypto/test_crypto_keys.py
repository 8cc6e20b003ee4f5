"""Keys: RFC 8032's vectors, the edge cases on which Ed25519 libraries differ, and key files."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import crypto_reference as reference
import pytest

from replicad.crypto.keys import SigningKey, verify
from replicad.errors import ConfigurationError, ConflictError, SignatureError
from replicad.model.ids import NodeId

if TYPE_CHECKING:
    from pathlib import Path

SEED = bytes(range(32))
# RFC 8032 section 7.1, TEST 1 to TEST 3.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
SMALL_ORDER = [reference.times(index, reference.TORSION) for index in range(8)]


def is_valid(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        verify(NodeId(key), message, signature)
    except SignatureError:
        return False
    return True


def scalar(number: int) -> bytes:
    return number.to_bytes(32, "little")


def message_where(condition, r: bytes, key: bytes) -> bytes:  # noqa: ANN001
    """The first message whose challenge meets the condition: the attacker chooses what is signed."""
    return next(message for number in range(1000) if condition(reference.challenge(r, key, message := b"%d" % number)))


def signature_of(secret: int, key: bytes, *, nonce: int, message: bytes) -> bytes:
    r = reference.encode(reference.times(nonce, reference.BASE))
    return r + scalar((nonce + reference.challenge(r, key, message) * secret) % reference.ORDER)


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey(bytes.fromhex(seed))
    assert key.id == bytes.fromhex(public)
    assert key.sign(bytes.fromhex(message)) == bytes.fromhex(signature)
    assert is_valid(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))


def test_any_changed_bit_is_refused() -> None:
    key = SigningKey(SEED)
    signature = key.sign(b"message")
    assert is_valid(key.id, b"message", signature)
    assert not is_valid(key.id, b"massage", signature)
    assert not is_valid(SigningKey.generate().id, b"message", signature)
    for bit in range(512):
        broken = bytearray(signature)
        broken[bit // 8] ^= 1 << bit % 8
        assert not is_valid(key.id, b"message", bytes(broken))


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_signature_of_wrong_length_is_refused(length: int) -> None:
    assert not is_valid(SigningKey(SEED).id, b"", bytes(length))


@pytest.mark.parametrize("index", range(8))
def test_key_of_small_order_signs_nothing(index: int) -> None:
    """R and S are sound and the equation holds (the challenge is a multiple of 8): only the key is to blame."""
    key, nonce = reference.encode(SMALL_ORDER[index]), 12345
    r = reference.encode(reference.times(nonce, reference.BASE))
    message = message_where(lambda challenge: challenge % 8 == 0, r, key)
    assert reference.lenient(key, message, r + scalar(nonce))
    assert not is_valid(key, message, r + scalar(nonce))


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(scalar(reference.P), id="y = p for 0"),
        pytest.param(scalar(reference.P | 1 << 255), id="y = p for 0, sign"),
        pytest.param(scalar(reference.P + 1), id="y = p + 1 for 1"),
        pytest.param(scalar(reference.P + 1 | 1 << 255), id="y = p + 1 for 1, sign of x = 0"),
        pytest.param(scalar(1 | 1 << 255), id="y = 1, sign of x = 0"),
        pytest.param(scalar(reference.P - 1 | 1 << 255), id="y = -1, sign of x = 0"),
    ],
)
def test_key_in_a_second_spelling_signs_nothing(key: bytes) -> None:
    assert reference.encode(reference.decode(key)) != key
    r = reference.encode(reference.times(777, reference.BASE))
    message = message_where(lambda challenge: challenge % 8 == 0, r, key)
    assert reference.lenient(key, message, r + scalar(777))
    assert not is_valid(key, message, r + scalar(777))


@pytest.mark.parametrize("y", [3, 4, 5, 6, 9, 10])
def test_non_canonical_key_of_large_order_is_refused(y: int) -> None:
    assert not is_valid(scalar(y + reference.P), b"", bytes(64))


@pytest.mark.parametrize("index", range(8))
def test_r_of_small_order_is_refused(index: int) -> None:
    """An honest key's owner could make it: S = k a, so that 8 S B = 8 R + 8 k A."""
    secret = 4711
    key = reference.encode(reference.times(secret, reference.BASE))
    r = reference.encode(SMALL_ORDER[index])
    signature = r + scalar(reference.challenge(r, key, b"m") * secret % reference.ORDER)
    assert reference.lenient(key, b"m", signature)
    assert not is_valid(key, b"m", signature)


def test_s_beyond_the_group_order_is_refused() -> None:
    """The classical malleability: S + L satisfies the same equation, so one record would have two signatures."""
    key = SigningKey(SEED)
    signature = key.sign(b"m")
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    for multiple in range(1, 15):
        beyond = r + scalar(s + multiple * reference.ORDER)
        assert reference.lenient(key.id, b"m", beyond)
        assert not is_valid(key.id, b"m", beyond)


def test_the_equation_is_cofactorless() -> None:
    """A key with a small component of order 8: the cofactored equation would accept every signature, ours only where the challenge is a multiple of 8."""
    secret, nonce = 31337, 99
    key = reference.encode(reference.add(reference.times(secret, reference.BASE), reference.TORSION))
    r = reference.encode(reference.times(nonce, reference.BASE))
    for residue in range(8):
        message = message_where(lambda challenge, residue=residue: challenge % 8 == residue, r, key)
        signature = signature_of(secret, key, nonce=nonce, message=message)
        assert reference.lenient(key, message, signature)
        assert is_valid(key, message, signature) is (residue == 0)


def test_small_components_of_key_and_r_must_cancel() -> None:
    """R with a small component, by an honest key (0 of 8) or one with such a component itself: cofactored everything holds, ours only where the components add up to nothing."""
    secret, nonce = 31337, 99
    for in_key, in_r in ((0, 1), (0, 7), (0, 0), (1, 1), (1, 5), (3, 2)):
        key = reference.encode(reference.add(reference.times(secret, reference.BASE), reference.times(in_key, reference.TORSION)))
        r = reference.encode(reference.add(reference.times(nonce, reference.BASE), reference.times(in_r, reference.TORSION)))
        for residue in range(8) if in_key else (3,):
            message = message_where(lambda challenge, residue=residue: challenge % 8 == residue, r, key)
            signature = r + scalar((nonce + reference.challenge(r, key, message) * secret) % reference.ORDER)
            assert reference.lenient(key, message, signature)
            assert is_valid(key, message, signature) is ((in_r + residue * in_key) % 8 == 0 if in_key else in_r == 0)


@pytest.mark.parametrize(
    "spelling", [reference.P, reference.P + 1, 1 | 1 << 255, reference.P - 1 | 1 << 255], ids=["p for 0", "p + 1 for 1", "1, sign", "-1, sign"]
)
def test_r_in_a_second_spelling_is_refused(spelling: int) -> None:
    secret, r = 4711, scalar(spelling)
    key = reference.encode(reference.times(secret, reference.BASE))
    signature = r + scalar(reference.challenge(r, key, b"m") * secret % reference.ORDER)
    assert reference.encode(reference.decode(r)) != r
    assert reference.lenient(key, b"m", signature)
    assert not is_valid(key, b"m", signature)


def test_key_file_round_trip(tmp_path: Path) -> None:
    key, path = SigningKey.generate(), tmp_path / "node.key"
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"replicad-secret-key:ed25519:")
    loaded = SigningKey.load(path)
    assert loaded.id == key.id
    assert loaded.sign(b"x") == key.sign(b"x")


def test_key_file_has_mode_0600_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        SigningKey.generate().save(tmp_path / "node.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    SigningKey(SEED).save(path)
    with pytest.raises(ConflictError, match="never overwritten"):
        SigningKey.generate().save(path)
    assert SigningKey.load(path).id == SigningKey(SEED).id


def test_a_key_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written"):
        SigningKey(SEED).save(tmp_path / "absent" / "node.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o777])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    SigningKey(SEED).save(path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="others may read") as refusal:
        SigningKey.load(path)
    assert refusal.value.hint == f"chmod 600 {path}"


LINE = b"replicad-secret-key:ed25519:" + SEED.hex().encode()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(SEED, id="raw"),
        pytest.param(SEED.hex().encode(), id="no label"),
        pytest.param(LINE[:-2], id="too short"),
        pytest.param(LINE + b"00", id="too long"),
        pytest.param(LINE + b"\n" + LINE, id="two lines"),
        pytest.param(LINE[:-1] + b"g", id="not hexadecimal"),
        pytest.param(LINE[:-2] + b"\xff\xfe", id="not text"),
        pytest.param(LINE + b"\n" * 100_000, id="endless"),
        pytest.param(b"replicad-secret-key:ed448:" + SEED.hex().encode(), id="another algorithm"),
    ],
)
def test_a_file_that_is_no_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="not a key file"):
        SigningKey.load(path)


def test_a_key_file_without_final_newline_is_one(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(LINE)
    path.chmod(0o600)
    assert SigningKey.load(path).id == SigningKey(SEED).id


@pytest.mark.parametrize("name", ["absent", "directory"])
def test_a_key_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        SigningKey.load(tmp_path / name)


def test_a_key_never_shows_its_secret() -> None:
    key = SigningKey(SEED)
    assert SEED.hex() not in repr(key)
    assert str(SEED) not in repr(key)
    assert str(key.id)[:9] in repr(key)
