"""Metrics: a registry per node, in the text format that scrapers read."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from replicad.telemetry.metrics import Metrics


def test_two_nodes_in_one_process_count_apart_and_the_exposition_parses() -> None:
    first, second = Metrics(), Metrics()
    first.service_crashes.labels("links").inc()
    body, kind = first.exposition()
    assert kind.startswith("text/plain; version=0.0.4")
    found = {sample.name: sample.value for family in text_string_to_metric_families(body.decode()) for sample in family.samples}
    assert found["replicad_service_crashes_total"] == 1
    assert found["process_open_fds"] > 0
    assert b'service="links"' not in second.exposition()[0]
