"""Links and their table over the in-memory carrier: order, bounds, liveness, renewal, duplicates, authentication."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from links_pair import KEYS, NETWORK, connect, ends, linked, pull

from replicad.crypto.session import Ephemeral, Session
from replicad.errors import PeerError, UnreachableError
from replicad.model.records import Envelope
from replicad.net import establish
from replicad.net import link as link_module
from replicad.net import links as links_module
from replicad.net.establish import accept_link, open_link
from replicad.net.link import Link, LinkConfig
from replicad.net.links import SIMULTANEOUS_S, UPS_AND_DOWNS, supersedes
from replicad.net.memory import PIPE_FRAMES_MAX, MemoryFrames, pipe
from replicad.protocol.handshake import Identity
from replicad.protocol.wire import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Compare, Heads, Message, Records, Renew, encode
from replicad.telemetry.log import Log
from support.waiting import until


async def test_messages_arrive_in_order_in_both_directions() -> None:
    async with ends() as (one, two):
        at_one, at_two = await linked(one, two)
        for number in range(1, 500):
            at_one.send(pull(number))
            at_two.send(pull(number))
        await until(lambda: len(one.heard) == len(two.heard) == 499, what="all messages")
        assert [message.number for message in two.heard] == list(range(1, 500))
        assert one.heard == two.heard
        assert (one.events, two.events) == ([f"up {two.key.id.short}"], [f"up {one.key.id.short}"])


class Later(msgspec.Struct, array_like=True, tag="later"):
    """A message of a version that does not exist yet."""

    what: str


@pytest.mark.parametrize("newer_opens", [True, False])
async def test_a_node_of_the_version_before_links_with_one_of_the_next(newer_opens: bool) -> None:
    """They speak the older version, and what only the newer one knows is ignored."""
    async with ends() as (older, newer):
        newer.versions = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX + 1)
        pair = await linked(newer, older) if newer_opens else await linked(older, newer)
        at_newer = pair[0] if newer_opens else pair[1]
        unknown: Any = Later("something new")
        for number in (1, 2):
            at_newer.send(unknown)
            at_newer.send(pull(number))
        await until(lambda: len(older.heard) == 2, what="what both versions know")
        assert not any(link.closed for link in pair)


async def test_nodes_without_a_common_version_refuse_each_other_and_say_why() -> None:
    async with ends() as (older, newer):
        newer.versions = (PROTOCOL_VERSION_MAX + 1, PROTOCOL_VERSION_MAX + 2)
        with pytest.raises(BaseExceptionGroup) as caught:
            await connect(newer, older)
        codes = {error.error_code: error.message for error in caught.value.exceptions if isinstance(error, PeerError)}
        assert codes.keys() == {"version"}
        assert "2 to 3 offered, 1 to 1 spoken here" in codes["version"]


async def test_round_trip_is_measured() -> None:
    async with ends() as (one, two):
        at_one, at_two = await linked(one, two)
        await until(lambda: at_one.rtt_s is not None and at_two.rtt_s is not None, what="a round trip")
        assert at_one.rtt_s is not None
        assert 0 <= at_one.rtt_s < 5


async def test_handlers_that_wait_hold_back_the_next_message_of_that_link() -> None:
    gate, seen = asyncio.Event(), list[int]()

    async def slow(_link: Link, message: Compare) -> None:
        seen.append(len(message.frontiers))
        await gate.wait()

    async with ends() as (one, two):
        two.table.route(Compare, slow)
        at_one, _ = await linked(one, two)
        at_one.send(Compare({}))
        at_one.send(pull(1))
        await until(lambda: seen, what="the slow handler")
        assert two.heard == []
        gate.set()
        await until(lambda: two.heard, what="the message behind it")


async def test_each_message_type_has_one_handler() -> None:
    async with ends() as (one, _two):
        one.table.route(Heads, lambda _link, _message: None)
        with pytest.raises(ValueError, match="Heads"):
            one.table.route(Heads, lambda _link, _message: None)


async def test_a_peer_that_takes_nothing_overflows_its_queue_and_loses_the_link() -> None:
    config = LinkConfig(queue_messages=50)
    async with ends() as (one, two):
        at_one, _never_served = await connect(one, two, config=config)
        one.serve(at_one)
        for number in range(1, PIPE_FRAMES_MAX + 200):
            at_one.send(pull(number))
        await until(lambda: one.ended, what="the end of the link")
        assert "too slowly" in one.ended[0]
        assert at_one.queued_bytes == 0
        at_one.send(pull(1))
        assert at_one.queued_bytes == 0


async def test_the_queue_is_bounded_in_bytes_too() -> None:
    async with ends() as (one, two):
        at_one, _never_served = await connect(one, two, config=LinkConfig(queue_bytes=100_000))
        record = Envelope("entry", bytes(60_000), NETWORK, bytes(64))
        at_one.send(Records((record,)))
        assert not at_one.closed
        at_one.send(Records((record,)))
        assert at_one.closed


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x93garbage", encode(Compare({}))[:-1], bytes(10)], ids=["empty", "invalid", "garbage", "cut", "zeros"])
async def test_a_frame_that_does_not_decode_ends_the_link(frame: bytes) -> None:
    async with ends() as (one, two):
        at_one, at_two = await connect(one, two)
        two.serve(at_two)
        await until(lambda: one.key.id in {link.node for link in two.table.all()}, what="the link")
        await at_one._frames.send(at_one.session.protect(frame) if frame else b"")
        await until(lambda: two.ended, what="the end of the link")
        assert two.table.all() == ()


async def test_a_handlers_complaint_ends_the_link_and_is_told_to_the_peer() -> None:
    def complain(_link: Link, _message: Message) -> None:
        raise PeerError("what you say makes no sense", code="nonsense")

    async with ends() as (one, two):
        two.table.route(Compare, complain)
        at_one, _ = await linked(one, two)
        at_one.send(Compare({}))
        await until(lambda: one.ended and two.ended, what="the end of the link")
        assert one.ended == ["the peer says: what you say makes no sense"]


async def test_a_handlers_defect_ends_that_link_only() -> None:
    def fail(_link: Link, _message: Message) -> None:
        raise ZeroDivisionError

    async with ends() as (one, two):
        two.table.route(Compare, fail)
        at_one, _ = await linked(one, two)
        at_one.send(Compare({}))
        await until(lambda: two.ended, what="the end of the link")
        assert two.ended == ["internal error"]


async def test_silence_ends_the_link() -> None:
    config = LinkConfig(ping_s=0.02, dead_s=0.1)
    async with ends() as (one, two):
        at_one, _never_served = await connect(one, two, config=config)
        one.serve(at_one)
        await until(lambda: one.ended, what="the end of the silent link")
        assert "nothing heard" in one.ended[0]


async def test_pings_keep_an_idle_link_alive_and_renewals_change_its_keys() -> None:
    config = LinkConfig(ping_s=0.02, dead_s=0.5, renew_s=0.05)
    async with ends() as (one, two):
        at_one, at_two = await linked(one, two, config=config)
        first = at_one.session.id
        await until(lambda: at_one.session.epoch >= 3 and at_two.session.epoch >= 3, what="three renewals")
        assert at_one.session.id != first
        at_one.send(pull(7))
        await until(lambda: two.heard, what="a message under new keys")
        two.table.authenticate(at_one.authorize("GET", "/x"), "GET", "/x")
        assert (one.ended, two.ended) == ([], [])


@pytest.mark.parametrize(
    "message",
    [Renew(0, bytes(32), bytes(31)), Renew(1, bytes([9] * 32), bytes(32)), Renew(2), Renew(0, bytes(32), bytes(32))],
    ids=["short", "unasked", "unprepared", "low order"],
)
async def test_renewals_out_of_place_end_the_link(message: Renew) -> None:
    async with ends() as (one, two):
        at_one, _ = await linked(one, two)
        at_one.send(message)
        await until(lambda: two.ended, what="the end of the link")
        assert two.ended[0]


@dataclass
class Told:
    """A frame carrier that somebody in the middle may touch."""

    inner: MemoryFrames
    touch: Callable[[bytes], list[bytes]] = lambda frame: [frame]

    async def send(self, frame: bytes) -> None:
        for changed in self.touch(frame):
            await self.inner.send(changed)

    async def receive(self) -> bytes:
        return await self.inner.receive()

    async def close(self) -> None:
        await self.inner.close()


@pytest.mark.parametrize("attack", ["alter", "repeat", "drop", "inject"])
async def test_without_tls_no_frame_can_be_altered_repeated_dropped_or_injected(attack: str) -> None:
    async with ends() as (one, two):
        at_one, at_two = await connect(one, two, wrap=Told)
        carrier = at_one._frames
        assert isinstance(carrier, Told)
        assert at_one.protected
        one.serve(at_one)
        two.serve(at_two)
        at_one.send(pull(1))
        await until(lambda: two.heard, what="the first message")
        frames: list[bytes] = []

        def touch(frame: bytes) -> list[bytes]:
            frames.append(frame)
            changed = bytes([*frame[:-1], frame[-1] ^ 1])
            return {"alter": [changed], "repeat": [frame, frame], "drop": [] if len(frames) == 1 else [frame], "inject": [encode(pull(666)), frame]}[attack]

        carrier.touch = touch
        at_one.send(pull(2))
        at_one.send(pull(3))
        await until(lambda: two.ended, what="the end of the link")
        assert "frame" in two.ended[0]
        assert pull(666) not in two.heard
        assert pull(3) not in two.heard or attack == "none"


# -- the handshake over a carrier -------------------------------------------------------------------------------------------------------------------------


async def test_a_peer_that_says_nothing_is_dropped_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(establish, "HANDSHAKE_TIMEOUT_S", 0.05)
    there, back = pipe()
    with pytest.raises(UnreachableError, match="no handshake"):
        await accept_link(back, Identity(KEYS[0], NETWORK, None), may_prove=lambda _node: True)
    assert await there.receive() == b""


async def test_strangers_are_told_so_before_anything_is_computed() -> None:
    there, back = pipe()
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(failure_of(accept_link(back, Identity(KEYS[0], NETWORK, None), may_prove=lambda _node: False)))
        with pytest.raises(PeerError, match="not a member"):
            await open_link(there, Identity(KEYS[1], NETWORK, None), saw=None, expect=None)
    assert answer.result().error_code == "not-a-member"


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1", bytes(2000), b"\x00"])
async def test_garbage_instead_of_a_handshake(garbage: bytes) -> None:
    there, back = pipe()
    await there.send(garbage)
    error = await failure_of(accept_link(back, Identity(KEYS[0], NETWORK, None), may_prove=lambda _node: True))
    assert error.error_code == "bad-frame"


async def failure_of(work: object) -> PeerError:
    try:
        await work  # type: ignore[misc]
    except PeerError as error:
        return error
    raise AssertionError("it did not fail")


# -- duplicates -----------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_opener", [0, 1], ids=["smaller id first", "larger id first"])
async def test_two_nodes_that_dial_each_other_keep_the_same_link(first_opener: int) -> None:
    async with ends() as (one, two):
        both = (one, two)
        opener, answerer = both[first_opener], both[1 - first_opener]
        await linked(opener, answerer)
        await linked(answerer, opener)
        await until(lambda: one.ended and two.ended, what="the end of one link")
        at_one, at_two = one.table.get(two.key.id), two.table.get(one.key.id)
        assert at_one is not None
        assert at_two is not None
        assert at_one.session.id == at_two.session.id
        assert at_one.outgoing
        at_one.send(pull(1))
        at_two.send(pull(1))
        await until(lambda: one.heard and two.heard, what="messages over the link that stayed")


async def test_the_end_of_the_last_link_with_a_member_is_remembered() -> None:
    async with ends() as (one, two):
        assert one.table.parted_s(two.key.id) is None
        await linked(two, one)
        assert one.table.parted_s(two.key.id) is None
        two.table.close_all("bye")
        await until(lambda: one.ended, what="the end of the link")
        parted_s = one.table.parted_s(two.key.id)
        assert parted_s is not None
        assert 0 <= parted_s < 60


async def test_a_node_that_dials_again_has_lost_the_old_link() -> None:
    async with ends() as (one, two):
        old, _ = await linked(two, one)
        new, _ = await linked(two, one)
        await until(lambda: len(one.ended) == 1, what="the end of the old link")
        assert two.table.get(one.key.id) is new
        assert old.closed


@dataclass
class Aged:
    """What ``supersedes`` looks at."""

    node: object
    outgoing: bool
    age_s: float


@pytest.mark.parametrize(
    ("old_outgoing", "new_outgoing", "old_age_s", "own_is_smaller", "expected"),
    [
        (True, True, 1, True, True),
        (False, False, 1, False, True),
        (False, True, 1, True, True),
        (False, True, 1, False, False),
        (True, False, 1, True, False),
        (True, False, 1, False, True),
        (True, False, SIMULTANEOUS_S + 1, True, True),
        (False, True, SIMULTANEOUS_S + 1, False, True),
    ],
)
def test_which_of_two_links_stays(old_outgoing: bool, new_outgoing: bool, old_age_s: float, own_is_smaller: bool, expected: bool) -> None:
    own, other = (KEYS[0].id, KEYS[1].id) if own_is_smaller else (KEYS[1].id, KEYS[0].id)
    assert supersedes(Aged(other, new_outgoing, 0.0), Aged(other, old_outgoing, old_age_s), own) is expected  # type: ignore[arg-type]


# -- data requests ----------------------------------------------------------------------------------------------------------------------------------------


async def test_data_requests_are_authenticated_by_the_links_session() -> None:
    async with ends() as (one, two):
        at_one, _ = await linked(one, two)
        header = at_one.authorize("GET", "/peer/v1/blobs/x", "bytes=0-1")
        assert two.table.authenticate(header, "GET", "/peer/v1/blobs/x", "bytes=0-1").node == one.key.id
        for action, code in (
            (lambda: two.table.authenticate(header, "GET", "/peer/v1/blobs/x", "bytes=0-1"), "replay"),
            (lambda: two.table.authenticate(at_one.authorize("GET", "/a"), "GET", "/b"), "bad-credentials"),
            (lambda: two.table.authenticate(None, "GET", "/b"), "bad-credentials"),
            (lambda: one.table.authenticate(at_one.authorize("GET", "/a"), "GET", "/a"), "bad-credentials"),
        ):
            with pytest.raises(PeerError) as caught:
                action()
            assert caught.value.error_code == code


async def test_a_node_that_is_no_member_any_more_gets_nothing_on_its_open_session() -> None:
    async with ends() as (one, two):
        at_one, _ = await linked(one, two)
        members = {one.key.id}
        two.table.may_link = lambda node: node in members
        two.table.authenticate(at_one.authorize("GET", "/a"), "GET", "/a")
        members.clear()
        with pytest.raises(PeerError, match="not a member"):
            two.table.authenticate(at_one.authorize("GET", "/a"), "GET", "/a")


async def test_with_its_link_a_session_ends() -> None:
    async with ends() as (one, two):
        at_one, at_two = await linked(one, two)
        at_two.close("enough")
        with pytest.raises(PeerError, match="no link"):
            two.table.authenticate(at_one.authorize("GET", "/a"), "GET", "/a")


async def test_requests_under_the_session_of_a_link_that_was_just_replaced_are_still_good() -> None:
    async with ends() as (one, two):
        old, _ = await linked(two, one)
        new, _ = await linked(two, one)
        await until(lambda: len(one.ended) == 1, what="the end of the old link")
        assert one.table.authenticate(old.authorize("GET", "/a"), "GET", "/a").session.id == new.session.id


async def test_a_link_of_a_node_that_is_no_member_is_not_taken_up() -> None:
    async with ends() as (one, two):
        two.table.may_link = lambda _node: False
        await linked(one, two)
        await until(lambda: two.ended and one.ended, what="the end of the link")
        assert two.events == []
        assert two.ended == ["not a member of the network"]


def test_session_secrets_differ_from_link_to_link(dice: random.Random) -> None:
    shared = Ephemeral(dice.randbytes(32)).exchange(Ephemeral(dice.randbytes(32)).public)
    one = Session(node=KEYS[0].id, peer=KEYS[1].id, initiator=True, secret=shared, now_ms=0)
    assert one.id not in repr(one)


async def test_a_member_that_links_and_leaves_in_a_loop_fills_no_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (link_module, links_module):
        monkeypatch.setattr(module, "log", Log(module.__name__))
    with caplog.at_level("INFO", logger="replicad"):
        async with ends() as (one, two):
            for _ in range(2 * UPS_AND_DOWNS):
                pair = await linked(one, two)
                await pair[0]._frames.send(b"\xff")
                await until(lambda pair=pair: all(link.closed for link in pair), what="the end of the link")
                await until(lambda: one.table.get(two.key.id) is None and two.table.get(one.key.id) is None, what="both to know")
    told = Counter((record.getMessage(), record.fields["peer"]) for record in caplog.records if hasattr(record, "fields"))
    assert set(told) == {(f"link {what}", end.key.id.short) for what in ("up", "down") for end in (one, two)} | {("link dropped", one.key.id.short)}
    assert max(told.values()) == UPS_AND_DOWNS
    assert told["link dropped", one.key.id.short] == 1
