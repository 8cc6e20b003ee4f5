"""The handshake, without wires: what two honest nodes agree on, and what everybody else gets."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from replicad.crypto.hashing import sha256
from replicad.crypto.keys import SigningKey
from replicad.errors import PeerError
from replicad.model.ids import Digest
from replicad.protocol.handshake import Answerer, Established, Identity, Opener
from replicad.protocol.wire import ClientHello, Fault, Finish, ServerHello

NETWORK = SigningKey(bytes([1] * 32)).id
OTHER_NETWORK = SigningKey(bytes([2] * 32)).id
ANN, BOB, EVE = (SigningKey(bytes([number] * 32)) for number in (11, 12, 13))
CERTIFICATE, EVES_CERTIFICATE = Digest(b"c" * 32), Digest(b"e" * 32)


def identity(key: SigningKey, *, tls: bool = True, **changes: object) -> Identity:
    return Identity(**{"key": key, "network": NETWORK, "certificate": sha256(bytes(key.id)) if tls else None, **changes})  # type: ignore[arg-type]


def fingerprint(key: SigningKey) -> Digest:
    return sha256(bytes(key.id))


def handshake(
    opener: Opener,
    answerer: Answerer,
    *,
    hello: Callable[[ClientHello], ClientHello] = lambda message: message,
    welcome: Callable[[ServerHello], ServerHello] = lambda message: message,
    finish: Callable[[Finish], Finish] = lambda message: message,
) -> tuple[Established, Established]:
    """Both sides' results; the three functions are somebody in the middle."""
    answer = answerer.welcome(hello(opener.hello))
    last, at_opener = opener.answer(welcome(answer), now_ms=5)
    return at_opener, answerer.finish(finish(last), now_ms=7)


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_both_sides_prove_each_other_and_share_a_secret(tls: bool) -> None:
    saw = fingerprint(BOB) if tls else None
    ann, bob = handshake(Opener(identity(ANN), saw=saw, expect=BOB.id), Answerer(identity(BOB, tls=tls)))
    assert (ann.node, bob.node) == (BOB.id, ANN.id)
    assert ann.version == bob.version == 1
    assert ann.session.id == bob.session.id
    assert ann.session.mac(b"x", b"y") == bob.session.mac(b"x", b"y")
    assert ann.protected is bob.protected is not tls
    assert (ann.certificate, bob.certificate) == (saw, None)


def test_every_handshake_has_another_secret() -> None:
    ids = {handshake(Opener(identity(ANN), saw=fingerprint(BOB)), Answerer(identity(BOB)))[0].session.id for _ in range(5)}
    assert len(ids) == 5


def test_behind_a_tls_proxy_the_frames_are_protected() -> None:
    """The node has no certificate of its own; the one that was seen is the proxy's and proves nothing."""
    ann, bob = handshake(Opener(identity(ANN), saw=EVES_CERTIFICATE, expect=BOB.id), Answerer(identity(BOB, tls=False)))
    assert ann.protected
    assert bob.protected
    assert ann.certificate is None


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(PeerError) as caught:
        action()
    return caught.value.error_code


def test_relay_that_terminates_tls_is_seen_by_the_answerer() -> None:
    opener = Opener(identity(ANN), saw=EVES_CERTIFICATE, expect=BOB.id)
    assert refused(lambda: handshake(opener, Answerer(identity(BOB)))) == "relayed"


def test_relay_that_hides_what_the_opener_saw_breaks_the_signature() -> None:
    opener = Opener(identity(ANN), saw=EVES_CERTIFICATE, expect=BOB.id)
    assert (
        refused(lambda: handshake(opener, Answerer(identity(BOB)), hello=lambda message: msgspec.structs.replace(message, certificate=fingerprint(BOB))))
        == "relayed"
    )


def test_relay_that_hides_both_certificates_breaks_the_signature() -> None:
    opener = Opener(identity(ANN), saw=EVES_CERTIFICATE, expect=BOB.id)

    def hide(message: ServerHello) -> ServerHello:
        return msgspec.structs.replace(message, certificate=EVES_CERTIFICATE)

    assert (
        refused(
            lambda: handshake(
                opener, Answerer(identity(BOB)), hello=lambda message: msgspec.structs.replace(message, certificate=fingerprint(BOB)), welcome=hide
            )
        )
        == "bad-signature"
    )


def test_downgrade_to_no_tls_is_seen_by_a_node_that_has_tls() -> None:
    opener = Opener(identity(ANN), saw=None, expect=BOB.id)
    assert refused(lambda: handshake(opener, Answerer(identity(BOB)))) == "relayed"


def test_downgrade_that_strips_the_certificate_from_the_answer_breaks_the_signature() -> None:
    opener = Opener(identity(ANN), saw=EVES_CERTIFICATE, expect=BOB.id)
    code = refused(
        lambda: handshake(
            opener,
            Answerer(identity(BOB)),
            hello=lambda message: msgspec.structs.replace(message, certificate=fingerprint(BOB)),
            welcome=lambda message: msgspec.structs.replace(message, certificate=b""),
        )
    )
    assert code == "bad-signature"


@pytest.mark.parametrize("field", ["ephemeral", "nonce", "version", "node"])
def test_nothing_of_the_answer_may_be_altered(field: str) -> None:
    def alter(message: ServerHello) -> ServerHello:
        value = {"ephemeral": EVE.id, "nonce": bytes(32), "version": 2, "node": EVE.id}[field]
        return msgspec.structs.replace(message, **{field: value})

    opener = Opener(identity(ANN, versions=(1, 2)), saw=fingerprint(BOB))
    assert refused(lambda: handshake(opener, Answerer(identity(BOB)), welcome=alter)) == "bad-signature"


@pytest.mark.parametrize("field", ["ephemeral", "nonce", "version_max", "node"])
def test_nothing_of_the_hello_may_be_altered(field: str) -> None:
    def alter(message: ClientHello) -> ClientHello:
        value = {"ephemeral": bytes(EVE.id), "nonce": bytes(32), "version_max": 1, "node": EVE.id}[field]
        return msgspec.structs.replace(message, **{field: value})

    opener = Opener(identity(ANN, versions=(1, 2)), saw=fingerprint(BOB), expect=BOB.id)
    assert refused(lambda: handshake(opener, Answerer(identity(BOB, versions=(1, 2))), hello=alter)) == "bad-signature"


def test_a_finish_by_somebody_else_is_not_believed() -> None:
    def forge(message: Finish) -> Finish:
        return Finish(EVE.sign(b"replicad/1 link opener" + bytes(32)))

    assert refused(lambda: handshake(Opener(identity(ANN), saw=fingerprint(BOB)), Answerer(identity(BOB)), finish=forge)) == "bad-signature"


def test_the_answerers_signature_is_not_good_for_the_opener() -> None:
    """Whoever relays the answerer's own signature back as a Finish, pretending to be it, fails: the labels differ."""
    answerer = Answerer(identity(BOB))
    opener = Opener(identity(ANN), saw=fingerprint(BOB))
    answer = answerer.welcome(msgspec.structs.replace(opener.hello, node=EVE.id))
    assert refused(lambda: answerer.finish(Finish(answer.signature), now_ms=0)) == "bad-signature"


def test_a_recorded_handshake_cannot_be_played_again() -> None:
    opener, first = Opener(identity(ANN), saw=fingerprint(BOB)), Answerer(identity(BOB))
    answer = first.welcome(opener.hello)
    finish, _ = opener.answer(answer, now_ms=0)
    first.finish(finish, now_ms=0)
    again = Answerer(identity(BOB))
    again.welcome(opener.hello)
    assert refused(lambda: again.finish(finish, now_ms=0)) == "bad-signature"
    assert refused(lambda: Opener(identity(ANN), saw=fingerprint(BOB)).answer(answer, now_ms=0)) == "bad-signature"


def test_another_network_another_node_oneself() -> None:
    saw = fingerprint(BOB)
    assert refused(lambda: handshake(Opener(identity(ANN, network=OTHER_NETWORK), saw=saw), Answerer(identity(BOB)))) == "other-network"
    assert refused(lambda: handshake(Opener(identity(ANN), saw=saw, expect=EVE.id), Answerer(identity(BOB)))) == "wrong-node"
    assert refused(lambda: handshake(Opener(identity(BOB), saw=saw), Answerer(identity(BOB)))) == "own-address"


@pytest.mark.parametrize(
    ("offered", "spoken", "expected"),
    [((1, 1), (1, 1), 1), ((1, 3), (2, 2), 2), ((1, 3), (1, 2), 2), ((2, 3), (1, 2), 2), ((1, 1), (2, 3), None), ((3, 4), (1, 2), None)],
)
def test_the_highest_common_version_is_chosen(offered: tuple[int, int], spoken: tuple[int, int], expected: int | None) -> None:
    opener = Opener(identity(ANN, versions=offered), saw=fingerprint(BOB))
    answerer = Answerer(identity(BOB, versions=spoken))
    if expected is None:
        assert refused(lambda: handshake(opener, answerer)) == "version"
    else:
        assert handshake(opener, answerer)[0].version == expected


def test_a_version_that_was_not_offered_is_not_taken() -> None:
    opener = Opener(identity(ANN, versions=(2, 3)), saw=fingerprint(BOB))
    assert (
        refused(lambda: handshake(opener, Answerer(identity(BOB, versions=(2, 3))), welcome=lambda message: msgspec.structs.replace(message, version=1)))
        == "version"
    )


def test_messages_out_of_place() -> None:
    opener, answerer = Opener(identity(ANN), saw=fingerprint(BOB)), Answerer(identity(BOB))
    assert refused(lambda: answerer.finish(Finish(bytes(64)), now_ms=0)) == "bad-handshake"
    assert refused(lambda: answerer.welcome(Finish(bytes(64)))) == "bad-handshake"
    assert refused(lambda: opener.answer(opener.hello, now_ms=0)) == "bad-handshake"
    answerer.welcome(opener.hello)
    assert refused(lambda: answerer.welcome(opener.hello)) == "bad-handshake"
    assert refused(lambda: answerer.finish(opener.hello, now_ms=0)) == "bad-handshake"


def test_the_other_sides_fault_is_reported_as_it_says() -> None:
    opener = Opener(identity(ANN), saw=fingerprint(BOB))
    with pytest.raises(PeerError, match="not a member") as caught:
        opener.answer(Fault("not-a-member", "not a member"), now_ms=0)
    assert caught.value.error_code == "not-a-member"
