"""What is remembered of who sent what."""

from __future__ import annotations

import pytest

from replicad.model.callers import AccessRole, Caller
from replicad.model.ids import Digest
from replicad.services.ingest import sent as sent_module
from replicad.services.ingest.sent import Sent


def limited(name: str) -> Caller:
    return Caller(name, AccessRole.PUBLISHER, frozenset({"munki"}))


def digests(*numbers: int) -> list[Digest]:
    return [Digest(bytes([number]) * 32) for number in numbers]


def test_whoever_sent_most_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent_module, "SENT_MAX", 4)
    sent, few, many = Sent(), limited("few"), limited("many")
    sent.add(few, digests(1))
    for number in range(1, 9):
        sent.add(many, digests(number))
    sent.add(few, digests(1))
    assert (sent.by(few), sent.by(many)) == (set(digests(1)), set(digests(6, 7, 8)))
    sent.discard("many", digests(1, 7))
    sent.add(many, digests(9))
    assert (sent.by(few), sent.by(many)) == (set(digests(1)), set(digests(6, 8, 9)))


def test_only_callers_with_limits_need_it() -> None:
    sent, admin = Sent(), Caller("root", AccessRole.ADMIN)
    sent.add(admin, digests(1))
    sent.discard("root", digests(1))
    assert sent.by(admin) == sent.by(limited("nobody")) == frozenset()
