"""Metrics for Prometheus, in a registry of our own: two nodes in one process (as in tests) do not share counts.

No label ever names a file, a path or a client, so the number of series is bounded by the code and by the number of members.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest


class Metrics:
    """The node's registry and its instruments. Made by assembly, handed to whoever counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.service_crashes = Counter("replicad_service_crashes", "Times a service failed and was restarted", ["service"], registry=self.registry)

    def exposition(self) -> tuple[bytes, str]:
        """The answer to a scrape: (body, content type)."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4
