"""Metrics for Prometheus, in a registry of our own: two nodes in one process (as in tests) do not share counts.

No label ever names a file, a path or a client, so the number of series is bounded by the code, by the number of members and by that of shares.
"""

from __future__ import annotations

from collections import Counter as Counts
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replicad.telemetry.access_log import Answered


class Downloads(Collector):
    """Answers of the clients' door and bytes of their bodies, by share and class of status. ``exists`` tells of a share: what clients ask for beside those counts under "".

    Counted in plain dictionaries and made into metrics when somebody asks: an instrument of the library costs a lock for each answer.
    """

    def __init__(self, exists: Callable[[str], bool]) -> None:
        self._exists = exists
        self._answers: Counts[tuple[str, int]] = Counts()
        self._bytes: Counts[str] = Counts()

    def note(self, answered: Answered) -> None:
        """Count one."""
        target = answered.target
        share = target[1 : target.find("/", 1)]
        if not self._exists(share):
            share = ""
        self._answers[share, answered.status // 100] += 1
        self._bytes[share] += answered.sent_bytes

    def collect(self) -> Iterator[CounterMetricFamily]:
        """For the registry."""
        answers = CounterMetricFamily("replicad_downloads_requests", "Requests that the downloads door answered", labels=("share", "status"))
        for (share, status), count in self._answers.items():
            answers.add_metric((share, f"{status}xx"), count)
        yield answers
        sent = CounterMetricFamily("replicad_downloads_bytes", "Bytes of bodies that it sent", labels=("share",))
        for share, count in self._bytes.items():
            sent.add_metric((share,), count)
        yield sent


class Metrics:
    """The node's registry and its instruments. Made by assembly, handed to whoever counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.service_crashes = Counter("replicad_service_crashes", "Times a service failed and was restarted", ["service"], registry=self.registry)

    def exposition(self) -> tuple[bytes, str]:
        """The answer to a scrape: (body, content type)."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4
