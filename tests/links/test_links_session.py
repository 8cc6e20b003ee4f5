"""Sessions: every request good once, every frame in its place, keys that end."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.crypto.session import EPOCH_MS_MAX, FRAME_OVERHEAD, REPLAY_WINDOW, Credentials, Ephemeral, Session, derive, fields
from replicad.errors import PeerError
from replicad.model.ids import NodeId

ONE, TWO, THREE = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))
SECRET = bytes(range(32))
GET = ("GET", "/peer/v1/blobs/ab?x=1", "bytes=0-9")


def sides(secret: bytes = SECRET) -> tuple[Session, Session]:
    """Both sides of one session, begun at time 0."""
    return (
        Session(node=ONE, peer=TWO, initiator=True, secret=secret, now_ms=0),
        Session(node=TWO, peer=ONE, initiator=False, secret=secret, now_ms=0),
    )


def credentials(session: Session, request: tuple[str, str, str] = GET, now_ms: int = 0) -> Credentials:
    return Credentials.parse(session.authorize(*request, now_ms=now_ms))


def code_of(action: object) -> str:
    with pytest.raises(PeerError) as caught:
        action()  # type: ignore[operator]
    return caught.value.error_code


def test_hkdf_is_that_of_rfc_5869() -> None:
    """Test case 1 of the RFC, first block."""
    found = derive(bytes([11] * 22), bytes(range(13)), bytes(range(0xF0, 0xFA)))
    assert found.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"


def test_a_request_is_accepted_once_in_each_direction() -> None:
    one, two = sides()
    for sender, receiver in ((one, two), (two, one)):
        shown = credentials(sender)
        receiver.check(shown, *GET, now_ms=0)
        assert code_of(lambda receiver=receiver, shown=shown: receiver.check(shown, *GET, now_ms=0)) == "replay"


@pytest.mark.parametrize(
    "changed",
    [("PUT", GET[1], GET[2]), ("GET", "/peer/v1/blobs/ac?x=1", GET[2]), ("GET", GET[1], "bytes=0-10"), ("GET", GET[1], "")],
    ids=["method", "target", "range", "no range"],
)
def test_credentials_fit_one_request_only(changed: tuple[str, str, str]) -> None:
    one, two = sides()
    shown = credentials(one)
    assert code_of(lambda: two.check(shown, *changed, now_ms=0)) == "bad-credentials"
    two.check(shown, *GET, now_ms=0)


def test_a_request_cannot_be_turned_back_to_its_sender() -> None:
    one, _two = sides()
    shown = credentials(one)
    assert code_of(lambda: one.check(shown, *GET, now_ms=0)) == "bad-credentials"
    reflected = Credentials(TWO, shown.session, shown.counter, shown.mac)
    assert code_of(lambda: one.check(reflected, *GET, now_ms=0)) == "bad-credentials"


def test_credentials_of_another_session_or_counter_do_not_fit() -> None:
    one, two = sides()
    other, _ = sides(bytes(32))
    assert code_of(lambda: two.check(credentials(other), *GET, now_ms=0)) == "bad-credentials"
    shown = credentials(one)
    moved = Credentials(shown.node, shown.session, shown.counter + 1, shown.mac)
    assert code_of(lambda: two.check(moved, *GET, now_ms=0)) == "bad-credentials"


@given(st.permutations(range(40)))
def test_requests_may_overtake_each_other(order: list[int]) -> None:
    one, two = sides()
    shown = [credentials(one) for _ in order]
    for index in order:
        two.check(shown[index], *GET, now_ms=0)
    for index in order:
        assert code_of(lambda index=index: two.check(shown[index], *GET, now_ms=0)) == "replay"


def test_what_is_older_than_the_window_counts_as_replayed() -> None:
    one, two = sides()
    old, edge = credentials(one), credentials(one)
    for _ in range(REPLAY_WINDOW - 1):
        last = credentials(one)
    two.check(last, *GET, now_ms=0)
    two.check(edge, *GET, now_ms=0)
    assert code_of(lambda: two.check(old, *GET, now_ms=0)) == "replay"


def test_keys_end_after_ten_minutes() -> None:
    one, two = sides()
    shown = credentials(one, now_ms=EPOCH_MS_MAX)
    two.check(shown, *GET, now_ms=EPOCH_MS_MAX)
    late = credentials(one, now_ms=EPOCH_MS_MAX)
    assert code_of(lambda: two.check(late, *GET, now_ms=EPOCH_MS_MAX + 1)) == "session-expired"
    assert code_of(lambda: one.authorize(*GET, now_ms=EPOCH_MS_MAX + 1)) == "session-expired"


def renew(one: Session, two: Session, now_ms: int) -> None:
    """What ``net.link`` does with three messages."""
    shared = Ephemeral(bytes([7] * 32)).exchange(Ephemeral(bytes([9] * 32)).public)
    two.prepare(shared, b"both messages", now_ms=now_ms)
    one.prepare(shared, b"both messages", now_ms=now_ms)
    one.advance()
    two.advance()


def test_renewal_changes_the_keys_and_keeps_what_is_under_way() -> None:
    one, two = sides()
    before, old_id, old_mac = credentials(one), one.id, one.mac(b"test", b"message")
    renew(one, two, EPOCH_MS_MAX - 1)
    two.check(before, *GET, now_ms=EPOCH_MS_MAX - 1)
    assert one.id == two.id != old_id
    assert one.mac(b"test", b"message") == two.mac(b"test", b"message") != old_mac
    two.check(credentials(one, now_ms=EPOCH_MS_MAX + 5), *GET, now_ms=EPOCH_MS_MAX + 5)
    for _ in range(3):
        renew(one, two, EPOCH_MS_MAX)
    assert len(two.ids) <= 3
    assert old_id not in two.ids


def test_while_a_renewal_is_under_way_both_epochs_are_accepted() -> None:
    one, two = sides()
    shared = bytes(32)
    two.prepare(shared, b"x", now_ms=5)
    one.prepare(shared, b"x", now_ms=5)
    one.advance()
    two.check(credentials(one, now_ms=5), *GET, now_ms=5)
    one.check(credentials(two, now_ms=5), *GET, now_ms=5)
    assert two.unprotect(one.protect(b"new")) == b"new"
    assert one.unprotect(two.protect(b"old")) == b"old"


def test_a_renewal_that_was_never_begun_cannot_be_confirmed() -> None:
    one, _ = sides()
    assert code_of(one.advance) == "bad-renewal"


def test_other_bindings_give_other_keys() -> None:
    ids = set()
    for shared, binding in ((bytes(32), b"a"), (bytes(32), b"b"), (bytes([1] * 32), b"a")):
        one, _ = sides()
        one.prepare(shared, binding, now_ms=0)
        one.advance()
        ids.add(one.id)
    assert len(ids) == 3


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_protected_frames_arrive_as_they_were(frames: list[bytes]) -> None:
    one, two = sides()
    for frame in frames:
        protected = one.protect(frame)
        assert len(protected) == len(frame) + FRAME_OVERHEAD
        assert two.unprotect(protected) == frame


@given(st.binary(min_size=1, max_size=60), st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_no_bit_of_a_protected_frame_may_change(frame: bytes, position: int, bit: int) -> None:
    one, two = sides()
    protected = bytearray(one.protect(frame))
    protected[position % len(protected)] ^= 1 << bit
    assert code_of(lambda: two.unprotect(bytes(protected))) == "bad-mac"


@pytest.mark.parametrize("attack", ["replay", "left out", "swapped", "turned back", "short", "empty", "of another session"])
def test_frames_out_of_their_place_are_refused(attack: str, dice: random.Random) -> None:
    one, two = sides()
    first, second = one.protect(b"first"), one.protect(b"second")
    other, _ = sides(dice.randbytes(32))
    if attack == "replay":
        two.unprotect(first)
    shown = {
        "replay": first,
        "left out": second,
        "swapped": second,
        "short": first[:20],
        "empty": b"",
        "of another session": other.protect(b"first"),
        "turned back": None,
    }[attack]
    if shown is None:
        assert code_of(lambda: one.unprotect(first)) == "bad-mac"
    else:
        assert code_of(lambda: two.unprotect(shown)) == "bad-mac"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic abc",
        "Replicad node=x, session=y, counter=1, mac=z",
        "Replicad " + "a" * 10_000,
        f"Replicad node={ONE}, session={'0' * 32}, counter=0, mac={'0' * 64}",
        f"Replicad node={ONE}, session={'0' * 32}, counter={10**30}, mac={'0' * 64}",
        f"Replicad node={ONE}, session={'0' * 32}, counter=1, mac={'0' * 64}\r\nX: y",
        f"Replicad node={str(ONE)[:-1]}7, session={'0' * 32}, counter=1, mac={'0' * 64}",
    ],
    ids=["none", "empty", "other scheme", "words", "long", "zero", "huge", "line break", "spelled otherwise"],
)
def test_headers_that_are_no_credentials(header: str | None) -> None:
    assert code_of(lambda: Credentials.parse(header)) == "bad-credentials"


@pytest.mark.parametrize(
    "point",
    [bytes(32), bytes([1, *([0] * 31)]), bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")],
    ids=["zero", "one", "order 8"],
)
def test_ephemeral_keys_of_low_order_are_refused(point: bytes) -> None:
    assert code_of(lambda: Ephemeral().exchange(point)) == "bad-handshake"


def test_x25519_is_that_of_rfc_7748() -> None:
    """Section 6.1."""
    alice = Ephemeral(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = Ephemeral(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert alice.exchange(bob.public) == bob.exchange(alice.public)
    assert alice.exchange(bob.public).hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


@given(st.lists(st.binary(max_size=8), max_size=6), st.lists(st.binary(max_size=8), max_size=6))
def test_no_two_lists_of_fields_look_alike(first: list[bytes], second: list[bytes]) -> None:
    assert (fields(*first) == fields(*second)) == (first == second)
