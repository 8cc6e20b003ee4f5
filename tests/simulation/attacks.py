"""What liars do: each attack of protocol.md section 9 that records, heads and messages can carry, by name. ``ATTACKS`` maps the name to a function of (people, liar)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from replicad.crypto import envelope as envelopes
from replicad.crypto.hashing import sha256
from replicad.crypto.keys import SigningKey
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.records import Cut, Envelope, Grant, Header, Policy, Role, Takedown, Tombstone
from replicad.protocol import records as formats
from replicad.protocol import wire
from replicad.protocol.gossip import heads
from simulation.people import CONTENTS, NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.model.records import Record
    from simulation.node import Node
    from simulation.people import People

FLOOD = 40


def _tell(people: People, liar: Node, message: wire.Message, *, to: int = 3) -> None:
    for link in people.dice.sample(list(liar.peers.values()), min(to, len(liar.peers))):
        people.wires.throw(liar, link, wire.encode(message))


def _forbidden(people: People, records: list[Record]) -> None:
    people.watch.forbidden |= {record.id for record in records}


def withhold(people: People, liar: Node) -> None:
    """Leaves records out of what it passes on; or stops doing so."""
    share = people.dice.random()
    liar.withhold = (lambda _: people.dice.random() < share) if liar.withhold is None else None


def replay(people: People, liar: Node) -> None:
    """Sends what everybody had long ago: records, and the oldest heads it knows."""
    stored = list(liar.stored.values())
    old = people.dice.sample(stored, min(5, len(stored)))
    _tell(people, liar, wire.Records(tuple(record.envelope for record in old)))
    kept = people.old_heads
    if kept:
        chosen = people.dice.sample(kept, min(5, len(kept)))
        _tell(people, liar, wire.Heads(tuple(chosen), (0,) * len(chosen)))


def equivocate(people: People, liar: Node) -> None:
    """Two records at one place, to different peers."""
    share, path, stage = "munki", people.dice.choice(NAMES), "dev"
    header = liar.next_header(share)
    one, other = (liar.sign(header, people.entry(path, stage, liar.catalog.live(share, path, stage)[:number])) for number in (0, 1))
    if one.id == other.id:
        other = liar.sign(header, Tombstone(path, stage))
    links = list(liar.peers.values())
    people.dice.shuffle(links)
    for index, link in enumerate(links[:4]):
        people.wires.throw(liar, link, wire.encode(wire.Records((one.envelope if index % 2 else other.envelope,))))
    liar._add(one)
    liar._committed([one], None)


def back_date(people: People, liar: Node) -> None:
    """As old as its chain allows: by an expelled key to pretend that it was before, by others to lose against nobody."""
    share = "munki"
    tip = liar.replica.chains.tip(liar.id, share)
    if tip is None:
        return
    header = msgspec.structs.replace(liar.next_header(share), hlc=Stamp(tip.last_hlc + 1))
    record = liar.sign(header, people.entry(people.dice.choice(NAMES), "dev"))
    if not any(node.admits(liar.id) for node in people.honest):
        _forbidden(people, [record])
    liar._add(record)
    liar._committed([record], None)


def future(people: People, liar: Node) -> None:
    """A quarter of an hour or a year ahead, to win every conflict."""
    ahead_ms = people.dice.choice((900_000, 31_536_000_000))
    header = liar.next_header("munki")
    header = msgspec.structs.replace(header, hlc=Stamp.of(people.wires.wall_ms + ahead_ms))
    record = liar.sign(header, people.entry(people.dice.choice(NAMES), "dev"))
    _tell(people, liar, wire.Records((record.envelope,)))


def overstep(people: People, liar: Node) -> None:
    """Entries, deletes and promotions where it has no right: share, path (``apps2`` beside ``apps``), stage (also the one promoted from), role."""
    member = people.founder.replica.trust.members(people.founder.now.wall_ms).get(liar.id)
    if member is not None and member.role is Role.ADMIN:
        return
    share, path, stage = people.dice.choice(
        (("fixed", "apps/x.pkg", "dev"), ("munki", "apps2/one.pkg", "dev"), ("munki", "apps/one.pkg", "prod"), ("munki", "App/two.pkg", "dev"))
    )
    live = people.admin.catalog.live(share, path, stage)
    promotion = msgspec.structs.replace(people.entry(path, "test" if stage == "dev" else "dev", live), source=stage)
    for body in (people.entry(path, stage, live), Tombstone(path, stage, supersedes=live), promotion):
        record = liar.sign(liar.next_header(share), body)
        if not any(node.may(share, body, of=liar.id) for node in (liar, *people.honest)):
            _forbidden(people, [record])
        liar._add(record)
        liar._committed([record], None)


def promote_oneself(people: People, liar: Node) -> None:
    """Grants, policies and cuts by who may not make them, or against who stands above."""
    victim = people.dice.choice((people.founder, people.admin))
    liar.author("", Cut(victim.id, {}, "revoke"), unchecked=True)
    said = [record.envelope for record in liar.stored.values() if (record.header.origin, record.header.share) == (liar.id, "")]
    _tell(people, liar, wire.Records(tuple(said[: wire.RECORDS_PER_MESSAGE_MAX])))
    member = people.founder.replica.trust.members(people.founder.now.wall_ms).get(liar.id)
    if member is None or member.role is not Role.ADMIN:
        liar.author("", Grant(liar.id, "root", Role.ADMIN), Policy("munki", public=True, removed=True), unchecked=True)
        liar.author("", Cut(people.dice.choice(people.nodes).id, {}, "remove"), Takedown(sha256(people.dice.choice(CONTENTS))), unchecked=True)


def forge(people: People, liar: Node) -> None:
    """Signatures for something else: another type, another network, other bytes, another key."""
    victim = people.dice.choice(people.honest)
    tip = liar.replica.chains.tip(victim.id, "munki")
    now = Stamp.of(people.wires.wall_ms)
    header = Header(victim.id, "munki", now, tip.last_seq + 1 if tip else 1, tip.last_id if tip else None, now)
    body = people.entry(people.dice.choice(NAMES), "prod")
    payload = formats.encode(header, body)
    own = envelopes.seal(liar.key, people.wires.network, "entry", payload)
    foreign = envelopes.seal(liar.key, SigningKey(sha256(b"elsewhere")).id, "entry", formats.encode(liar.next_header("munki"), body))
    signed = next((record for record in reversed(liar.stored.values()) if record.header.share), None)
    forged = [Envelope("entry", payload, victim.id, own.signature), own, foreign]
    if signed is not None:
        envelope = signed.envelope
        forged.append(Envelope("tombstone" if envelope.type == "entry" else "entry", envelope.payload, envelope.key, envelope.signature))
        forged.append(Envelope(envelope.type, envelope.payload, envelope.key, bytes(63) + b"\x01"))
        forged.append(Envelope(envelope.type, envelope.payload.replace(b'"seq":', b'"seq":1'), envelope.key, envelope.signature))
    _tell(people, liar, wire.Records(tuple(forged)), to=6)


def break_chain(people: People, liar: Node) -> None:
    """Signed, but no successor of what it says it follows."""
    header = liar.next_header("munki")
    if header.prev is None:
        return
    tip = liar.stored[header.prev]
    stranger = people.dice.choice([record for record in liar.stored.values() if record.header.origin != liar.id])
    replace = msgspec.structs.replace
    headers = (
        replace(header, seq=header.seq + 1),
        replace(header, prev=stranger.id),
        replace(header, hlc=tip.header.hlc),
        replace(header, incarnation=Stamp(max(1, tip.header.incarnation - 1))),
        replace(header, prev=RecordId(sha256(b"nobody has this"))),
    )
    made = [liar.sign(one, people.entry(people.dice.choice(NAMES), "dev")) for one in headers]
    _tell(people, liar, wire.Records(tuple(record.envelope for record in made)), to=6)


def forge_heads(people: People, liar: Node) -> None:
    """Another node's head with one's own site and addresses, signed by oneself or not at all."""
    if not people.old_heads:
        return
    envelope = people.dice.choice(people.old_heads)
    head = heads.peek(envelope)
    newer = msgspec.structs.replace(head, counter=head.counter + 1000, presence=heads.Presence(urls=("https://evil:8440",)))
    signed = heads.sign(liar.key, people.wires.network, newer)
    chosen = people.dice.choice(
        (signed, Envelope("head", signed.payload, envelope.key, envelope.signature), Envelope("head", signed.payload, envelope.key, signed.signature))
    )
    _tell(people, liar, wire.Heads((chosen,), (0,)))


def flood(people: People, liar: Node) -> None:
    """Many tiny valid records, about nothing."""
    bodies = [people.entry(f"apps/{people.dice.randrange(8)}", "dev") for _ in range(FLOOD)]
    liar.author("munki", *[body for body in bodies if liar.may("munki", body)])


def garbage(people: People, liar: Node) -> None:
    """Bytes that are no message; messages about nothing."""
    dice = people.dice
    nobody = [NodeId(dice.randbytes(32)) for _ in range(50)]
    lines = {liar.id: (wire.End(Stamp(5), 9, RecordId(dice.randbytes(32))),), people.admin.id: (wire.End(Stamp(7), 1 << 40, RecordId(dice.randbytes(32))),)}
    choice = dice.choice(
        (
            dice.randbytes(dice.randint(1, 200)),
            bytes(wire.FRAME_BYTES_MAX + 1),
            wire.encode(wire.Eager(tuple(nobody), wanted=False)),
            wire.encode(wire.Compare({name: Digest(dice.randbytes(32)) for name in ("secret", "nothing", "munki", "")})),
            wire.encode(wire.Frontier("munki", lines, reply=True)),
            wire.encode(wire.Frontier("secret", {}, whole=True, reply=True)),
            wire.encode(wire.Pull(1, "secret", people.founder.id, {})),
            wire.encode(wire.Pull(2, "munki", people.admin.id, {Stamp(9): 3})),
            wire.encode(wire.Records((), 12345, more=True)),
            wire.encode(wire.Heads((), (1, 2, 3))),
        )
    )
    for link in dice.sample(list(liar.peers.values()), min(2, len(liar.peers))):
        people.wires.throw(liar, link, choice)


ATTACKS: dict[str, Callable[[People, Node], None]] = {
    attack.__name__: attack
    for attack in (withhold, replay, equivocate, back_date, future, overstep, promote_oneself, forge, break_chain, forge_heads, flood, garbage)
}
