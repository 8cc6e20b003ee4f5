"""In which order a node answers: few at once, everybody in turn, nobody held up by a slow receiver.

A swarm spreads a chunk only when it has arrived whole: eight answers at an eighth of the uplink each are useful eight times as fast as sixty-four at a sixty-fourth. So at most ``uploads_max``
answers run at once and ``uploads_per_peer`` with one peer, or fewer where many may ask: together they share half of the places, so that whoever comes next finds one. One more of each peer waits visibly, and
a peer that asks beyond that hears "busy". Whoever was served longest ago is next. An answer older than ``upload_patience_s`` does not count any more: its receiver is slow and the uplink is free for others; that receiver gets nothing else meanwhile.

Under a limit of our own (``limit``, bytes per second of all answers) fewer run at once, so that none is so slow that its receiver gives it up, and patience lasts as long as that takes.
"""

from __future__ import annotations

from enum import Enum

from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.model.ids import NodeId
from replicad.model.limits import RATE_MIN
from replicad.protocol.fetch.config import FetchConfig

ANSWER_RATE_MIN = 4 * RATE_MIN
"""Bytes per second of each answer under a limit: four times the rate below which a receiver gives up."""


class Turn(Enum):
    """Answer now; wait until ``due`` names the number; refuse."""

    NOW = "now"
    WAIT = "wait"
    BUSY = "busy"


class Turns:
    """Numbers are the caller's names for requests, unique while they last."""

    def __init__(self, config: FetchConfig) -> None:
        self._config = config
        self.limit: int | None = None
        self.peers = 1
        """How many may ask."""
        self._running: dict[int, tuple[NodeId, float]] = {}
        self._waiting: dict[NodeId, int] = {}
        self._served: dict[NodeId, int] = {}
        self._clock = 0
        self._now = 0.0

    def ask(self, number: int, node: NodeId, now: float) -> Turn:
        """A request arrived."""
        self._now = now
        if node in self._waiting:
            return Turn.BUSY
        if self._may_run(node, now):
            self._start(number, node, now)
            return Turn.NOW
        self._waiting[node] = number
        return Turn.WAIT

    def done(self, number: int) -> None:
        """The answer ended, or the one who waited gave up. Ask ``due`` afterwards."""
        if self._running.pop(number, None) is None:
            self._waiting = {node: waiting for node, waiting in self._waiting.items() if waiting != number}

    def due(self, now: float) -> list[int]:
        """Those who waited and are answered now, the one served longest ago first."""
        self._now = now
        found: list[int] = []
        for node in sorted(self._waiting, key=lambda node: self._served.get(node, 0)):
            if self._may_run(node, now):
                found.append(self._waiting.pop(node))
                self._start(found[-1], node, now)
        return found

    def next_deadline(self) -> float | None:
        """When somebody's patience ends, if anybody waits."""
        if not self._waiting:
            return None
        ends = (started + self._patience_s for _, started in self._running.values())
        return min((end for end in ends if end > self._now), default=None)

    def _start(self, number: int, node: NodeId, now: float) -> None:
        self._clock += 1
        self._served.pop(node, None)
        self._served[node] = self._clock
        while len(self._served) > 4096:
            del self._served[next(iter(self._served))]
        self._running[number] = node, now

    @property
    def _most(self) -> int:
        return self._config.uploads_max if self.limit is None else max(1, min(self._config.uploads_max, self.limit // ANSWER_RATE_MIN))

    @property
    def _patience_s(self) -> float:
        return self._config.upload_patience_s if not self.limit else max(self._config.upload_patience_s, 2 * CHUNK_SIZE_MIN * self._most / self.limit)

    @property
    def _share(self) -> int:
        return max(1, min(self._config.uploads_per_peer, self._config.uploads_max // (2 * max(1, self.peers))))

    def _may_run(self, node: NodeId, now: float) -> bool:
        patience_s = self._patience_s
        own = [now - started for peer, started in self._running.values() if peer == node]
        if len(own) >= self._share or any(age_s >= patience_s for age_s in own):
            return False
        return sum(now - started < patience_s for _, started in self._running.values()) < self._most
