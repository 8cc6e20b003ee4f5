"""One-time codes: RFC 6238's own, and which time step a code is of."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.crypto import totp

SECRET = b"12345678901234567890"


@pytest.mark.parametrize(
    ("time_s", "code"),
    [(59, "94287082"), (1111111109, "07081804"), (1111111111, "14050471"), (1234567890, "89005924"), (2000000000, "69279037"), (20000000000, "65353130")],
)
def test_the_codes_of_rfc_6238(time_s: int, code: str) -> None:
    """Appendix B has eight digits; six are the last six of them."""
    assert totp.code_of(SECRET, time_s // totp.STEP_S) == code[-6:]
    assert totp.step_of(SECRET, code[-6:], time_s) == time_s // totp.STEP_S


@given(secret=st.binary(min_size=20, max_size=20), now_s=st.integers(3600, 2**40), ahead=st.integers(-5, 5))
def test_a_code_counts_for_a_minute_and_a_half(secret: bytes, now_s: int, ahead: int) -> None:
    step = now_s // totp.STEP_S + ahead
    found = totp.step_of(secret, totp.code_of(secret, step), now_s)
    if abs(ahead) <= totp.SKEW_STEPS:
        assert found is not None
        assert totp.code_of(secret, found) == totp.code_of(secret, step)
    else:
        assert found in {None, *range(now_s // totp.STEP_S - 1, now_s // totp.STEP_S + 2)}


@pytest.mark.parametrize("code", ["", "12345", "1234567", "28708\u0662", "abcdef"])
def test_what_is_no_code(code: str) -> None:
    assert totp.step_of(SECRET, code, 59) is None


def test_what_an_app_is_given() -> None:
    found = urlsplit(totp.uri(SECRET, name="jane", issuer="replicad ams1"))
    assert (found.scheme, found.netloc, unquote(found.path)) == ("otpauth", "totp", "/replicad ams1:jane")
    assert parse_qs(found.query) == {"secret": ["GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"], "issuer": ["replicad ams1"]}
    assert "+" not in found.query
