"""Signed URLs: a member vouches with its node key that whoever shows this URL may download one file until a moment.

The signature is that of an envelope of type ``url`` whose payload is the canonical JSON ``{"path":KEY,"share":SHARE,"until":SECONDS}`` (docs/protocol.md section 11), so it is worthless for any other
name, network or purpose. There is no secret to share: every node verifies it against the members it knows, and when the member is removed, its URLs end with it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from replicad.crypto import envelope as envelopes
from replicad.crypto.keys import SigningKey
from replicad.errors import InputError, SignatureError
from replicad.model.ids import NodeId
from replicad.model.members import Member
from replicad.model.records import Envelope, Role

URL_TYPE = "url"
UNTIL, KEY, SIGNATURE = "until", "key", "signature"
"""The parameters of the query string."""
UNTIL_MAX = 253_402_300_799
_SIGNATURE_CHARACTERS = 86


class _Said(msgspec.Struct, frozen=True):
    path: str
    share: str
    until: int


_ENCODER = msgspec.json.Encoder(order="sorted")


def sign(key: SigningKey, network: NodeId, *, share: str, path_key: str, until_s: int) -> dict[str, str]:
    """The parameters for the query string. ``path_key`` is the file's collision key, ``until_s`` seconds since 1970."""
    signature = envelopes.seal(key, network, URL_TYPE, _payload(share, path_key, until_s)).signature
    return {UNTIL: str(until_s), KEY: str(key.id).replace("-", ""), SIGNATURE: base64.urlsafe_b64encode(signature).decode().rstrip("=")}


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """What a query string says, unverified."""

    until_s: int
    key: NodeId
    signature: bytes

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> SignedUrl | None:
        """None if the parameters are missing or malformed."""
        until, key, signature = (parameters.get(name, "") for name in (UNTIL, KEY, SIGNATURE))
        if not (until.isascii() and until.isdecimal() and len(until) <= len(str(UNTIL_MAX)) and len(signature) == _SIGNATURE_CHARACTERS):
            return None
        try:
            return cls(int(until), NodeId.parse(key), base64.urlsafe_b64decode(signature + "=="))
        except (InputError, binascii.Error, ValueError):
            return None

    def admits(self, members: Mapping[NodeId, Member], network: NodeId, *, share: str, path_key: str, now_s: float) -> bool:
        """Whether a publisher or admin of that share, a member now, signed this for that file, and its time has not come. About 60 microseconds, whichever share is asked for: the signature first."""
        member = members.get(self.key)
        if member is None or member.role is Role.MIRROR or self.until_s < now_s:
            return False
        try:
            envelopes.verify(Envelope(URL_TYPE, _payload(share, path_key, self.until_s), self.key, self.signature), network)
        except SignatureError:
            return False
        return member.has_share(share)


def _payload(share: str, path_key: str, until_s: int) -> bytes:
    return _ENCODER.encode(_Said(path_key, share, until_s))
