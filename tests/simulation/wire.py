"""Virtual time and the links of the simulator: what is sent is really encoded and decoded, and may be late, lost, doubled, overtaken or cut off in one direction only.

Everything comes from one ``random.Random``: a seed replays exactly. Whatever is the same for all nodes is done once: a frame is decoded once however many nodes receive it, an envelope is verified once.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.crypto import keys
from replicad.crypto.hashing import sha256
from replicad.crypto.keys import SigningKey
from replicad.errors import DistrustError
from replicad.protocol import records, wire
from replicad.protocol.gossip import heads

if TYPE_CHECKING:
    from replicad.model.ids import NodeId
    from replicad.model.records import Envelope, Record
    from simulation.node import Node

EPOCH_MS = 1_700_000_000_000
REMEMBERED_BYTES_MAX = 4096
"""A longer frame is seldom sent to two nodes, and many of them are much memory."""
STEPS_MAX = 20_000_000
"""Of one run; an ordinary schedule takes some 20,000."""
REMEMBERED_MAX = 20_000
"""Frames, envelopes and signatures of which the outcome is kept; then all is forgotten."""


@dataclass
class Weather:
    """How links behave. Times in milliseconds; probabilities per message."""

    latency_ms: tuple[int, int] = (1, 40)
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: bool = False


@dataclass(eq=False)
class Link:
    """Between two running processes. ``blocked`` names the senders of whom nothing arrives."""

    first: Node
    second: Node
    blocked: set[str] = field(default_factory=set)
    last_ms: dict[str, int] = field(default_factory=dict)


@dataclass
class Cost:
    """What was sent."""

    messages: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)


class Wires:
    """The clock, what is to happen, and who is linked with whom. ``now_ms`` is everybody's monotonic clock; the time of day is a node's own business."""

    def __init__(self, seed: int | str) -> None:
        self.dice = random.Random(seed)
        self.weather = Weather()
        self.key = SigningKey(sha256(f"network {seed}".encode()))
        self.network: NodeId = self.key.id
        self.now_ms = 1_000_000
        self.skipped_ms = 0
        self.cost = Cost()
        self.steps = 0
        self.overheard: Callable[[Node, Node, wire.Message], None] = lambda *_: None
        self._queue: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = itertools.count()
        self._decoded: dict[bytes, wire.Message | None] = {}
        self._parsed: dict[Envelope, Record | DistrustError] = {}

    def key_of(self, name: str) -> SigningKey:
        """The key of the node of that name."""
        return SigningKey(sha256(f"{self.network} {name}".encode()))

    # -- time ---------------------------------------------------------------------------------------------------------------------------------------

    @property
    def wall_ms(self) -> int:
        """The true time of day."""
        return EPOCH_MS + self.now_ms + self.skipped_ms

    def at(self, time_ms: int, action: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._queue, (time_ms, next(self._order), action, arguments))

    def run(self, ms: int, *, until: Callable[[], bool] | None = None, every_ms: int = 500) -> bool:
        """Let that much time pass, or less if ``until`` (asked every ``every_ms``) comes true; whether it did."""
        end = self.now_ms + ms
        while self.now_ms < end:
            if until is not None and until():
                return True
            self._pass(min(end, self.now_ms + every_ms) if until is not None else end)
        return until is not None and until()

    def _pass(self, end: int) -> None:
        while self._queue and self._queue[0][0] <= end:
            time_ms, _, action, arguments = heapq.heappop(self._queue)
            self.now_ms = max(self.now_ms, time_ms)
            self.steps += 1
            if self.steps > STEPS_MAX:
                raise RuntimeError(f"more than {STEPS_MAX} steps: somebody goes round in circles")
            action(*arguments)
        self.now_ms = end

    # -- links --------------------------------------------------------------------------------------------------------------------------------------

    def link(self, first: Node, second: Node) -> bool:
        """A handshake: both run, and each knows the other for a member. A link with another process of the same key makes room."""
        if not (first.alive and second.alive and first.id != second.id and first.admits(second.id) and second.admits(first.id)):
            return False
        for node, peer in ((first, second), (second, first)):
            if (old := node.peers.get(peer.id)) is not None:
                if peer in (old.first, old.second):
                    return False
                self.unlink(old)
        link = Link(first, second)
        first.peers[second.id] = second.peers[first.id] = link
        first.opened(second.id)
        if first.peers.get(second.id) is link:
            second.opened(first.id)
        return True

    def unlink(self, link: Link) -> None:
        for node, peer in ((link.first, link.second), (link.second, link.first)):
            if node.peers.get(peer.id) is link:
                del node.peers[peer.id]
                node.closed(peer.id)

    def transmit(self, sender: Node, to: NodeId, message: wire.Message) -> None:
        link = sender.peers.get(to)
        if link is not None:
            self.overheard(sender, link.second if link.first is sender else link.first, message)
            for frame in sender.frames(message):
                self.cost.messages[type(message).__name__] += 1
                self.cost.bytes[type(message).__name__] += len(frame)
                self.throw(sender, link, frame)

    def throw(self, sender: Node, link: Link, frame: bytes) -> None:
        """Bytes into a link."""
        weather, dice = self.weather, self.dice
        if sender.name in link.blocked:
            return
        for _ in range(1 + (weather.duplicate > 0 and dice.random() < weather.duplicate)):
            if weather.loss and dice.random() < weather.loss:
                continue
            arrival = self.now_ms + dice.randint(*weather.latency_ms)
            if not weather.reorder:
                arrival = link.last_ms[sender.name] = max(arrival, link.last_ms.get(sender.name, 0))
            self.at(arrival, self._arrive, sender, link, frame)

    def _arrive(self, sender: Node, link: Link, frame: bytes) -> None:
        receiver = link.second if link.first is sender else link.first
        if receiver.peers.get(sender.id) is link:
            receiver.hear(link, sender.id, frame)

    # -- once for all -------------------------------------------------------------------------------------------------------------------------------

    def decode(self, frame: bytes) -> wire.Message | None:
        """What ``wire.decode`` says."""
        if frame in self._decoded:
            return self._decoded[frame]
        message = wire.decode(frame)
        if len(frame) <= REMEMBERED_BYTES_MAX:
            _bounded(self._decoded)[frame] = message
        return message

    def parse(self, envelope: Envelope) -> Record:
        """Verified and parsed, or the error it deserves."""
        found = self._parsed.get(envelope)
        if found is None:
            try:
                found = records.parse(envelope, self.network)
            except DistrustError as error:
                found = error
            self._parsed[envelope] = found
        if isinstance(found, DistrustError):
            raise found
        return found


def _bounded(cache: dict) -> dict:  # type: ignore[type-arg]
    if len(cache) >= REMEMBERED_MAX:
        cache.clear()
    return cache


@contextmanager
def once_for_all() -> Iterator[None]:
    """What the product does with the same bytes on every node is done once: signatures verified, heads read."""
    originals = {(module, name): getattr(module, name) for module, name in ((keys, "verify"), (heads, "peek"), (heads, "order"))}
    for (module, name), function in originals.items():
        setattr(module, name, _remembering(function))
    try:
        yield
    finally:
        for (module, name), function in originals.items():
            setattr(module, name, function)


def _remembering(function: Callable[..., object]) -> Callable[..., object]:
    """Good outcomes are remembered; what raises does so each time."""
    known: dict[tuple[object, ...], object] = {}

    def remembered(*arguments: object) -> object:
        try:
            return known[arguments]
        except KeyError:
            found = _bounded(known)[arguments] = function(*arguments)
            return found

    return remembered
