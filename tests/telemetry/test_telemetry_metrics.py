"""Metrics: a registry per node, in the text format that scrapers read."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from replicad.telemetry.access_log import Answered
from replicad.telemetry.metrics import Downloads, Metrics


def test_two_nodes_in_one_process_count_apart_and_the_exposition_parses() -> None:
    first, second = Metrics(), Metrics()
    first.service_crashes.labels("links").inc()
    body, kind = first.exposition()
    assert kind.startswith("text/plain; version=0.0.4")
    found = {sample.name: sample.value for family in text_string_to_metric_families(body.decode()) for sample in family.samples}
    assert found["replicad_service_crashes_total"] == 1
    assert found["process_open_fds"] > 0
    assert b'service="links"' not in second.exposition()[0]


def answered(target: str, status: int, sent_bytes: int) -> Answered:
    return Answered(0.0, 0.0, "192.0.2.1", "GET", target, status, sent_bytes, "", "")


def test_downloads_are_counted_by_share_and_class_of_status() -> None:
    metrics, downloads = Metrics(), Downloads({"jamf", "munki"}.__contains__)
    metrics.registry.register(downloads)
    for target, status, sent in (
        ("/jamf/a.pkg", 200, 1000),
        ("/jamf/a.pkg?token=secret", 206, 10),
        ("/jamf/a.pkg", 304, 0),
        ("/munki/b", 404, 14),
        ("/invented/by-a-client", 404, 14),
        ("/-/health", 200, 16),
        ("/", 404, 14),
        ("http://absolute/jamf/a.pkg", 200, 5),
        ("*", 400, 0),
    ):
        downloads.note(answered(target, status, sent))
    samples = [sample for family in text_string_to_metric_families(metrics.exposition()[0].decode()) for sample in family.samples]
    found = {(sample.name, *sample.labels.values()): sample.value for sample in samples if sample.name.startswith("replicad_downloads")}
    assert found == {
        ("replicad_downloads_requests_total", "jamf", "2xx"): 2,
        ("replicad_downloads_requests_total", "jamf", "3xx"): 1,
        ("replicad_downloads_requests_total", "munki", "4xx"): 1,
        ("replicad_downloads_requests_total", "", "4xx"): 3,
        ("replicad_downloads_requests_total", "", "2xx"): 2,
        ("replicad_downloads_bytes_total", "jamf"): 1010,
        ("replicad_downloads_bytes_total", "munki"): 14,
        ("replicad_downloads_bytes_total", ""): 49,
    }
