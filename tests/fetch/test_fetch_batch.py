"""The bytes of a batch answer: exactly one reading, or a fault of the peer."""

from __future__ import annotations

import pytest

from replicad.crypto.hashing import sha256
from replicad.errors import PeerError
from replicad.protocol.fetch.batch import Mark, answer_bytes_max, answered
from replicad.protocol.wire import Small

CONTENTS = [Small(sha256(bytes([number])), size) for number, size in enumerate((3, 0, 2))]
WHOLE = b"\x01abc\x01\x01de"


def read(answer: bytes, *, patient: bool = False) -> list[bytes | Mark]:
    return [bytes(part) if isinstance(part, memoryview) else part for part in answered(CONTENTS, memoryview(answer), patient=patient)]


def test_parts_come_in_order_with_the_marks_of_what_does_not() -> None:
    assert read(WHOLE) == [b"abc", b"", b"de"]
    assert len(WHOLE) == answer_bytes_max(CONTENTS)
    assert read(b"\x00\x01\x00") == [Mark.ABSENT, b"", Mark.ABSENT]
    assert read(b"\x02\x00\x01de", patient=True) == [Mark.SPREAD, Mark.ABSENT, b"de"]


@pytest.mark.parametrize("answer", [*(WHOLE[:cut] for cut in range(len(WHOLE))), WHOLE + b"\x00", b"\x03" + WHOLE[1:], b"\xff" + WHOLE[1:]])
@pytest.mark.parametrize("patient", [False, True])
def test_what_does_not_fit_the_question_is_a_fault(answer: bytes, patient: bool) -> None:
    with pytest.raises(PeerError, match="batch answer") as caught:
        read(answer, patient=patient)
    assert caught.value.error_code == "bad-answer"


def test_only_whoever_asks_patiently_may_be_told_to_wait() -> None:
    with pytest.raises(PeerError, match="does not fit"):
        read(b"\x02\x00\x00")
