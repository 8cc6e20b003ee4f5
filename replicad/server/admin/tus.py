"""What the headers of tus 1.0 say (https://tus.io/protocols/resumable-upload): text in, values out, or an InputError that names the header."""

from __future__ import annotations

import base64
import binascii
import re

from msgspec import Struct

from replicad.errors import InputError
from replicad.model.checksums import Checksum
from replicad.model.ids import Digest
from replicad.server.admin.routes import convert
from replicad.services.ingest import Destination

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination"
CONTENT_TYPE = "application/offset+octet-stream"
ALGORITHMS = {"sha1": 20, "sha256": 32}
"""Of checksums, and the bytes of each: the first is the one that every server must know."""
METADATA_CHARS_MAX = 4096
_KEY = re.compile(r"[!-+\--~]+")
"""ASCII without space and comma."""
_NUMBER = re.compile(r"[0-9]{1,18}")


class Metadata(Struct, frozen=True, forbid_unknown_fields=True):
    """``Upload-Metadata`` of POST /uploads. ``filename`` is the ``path`` where that is absent; ``sha256`` is what the whole must be. The others are what clients add by themselves; they mean nothing here."""

    share: str
    path: str | None = None
    filename: str | None = None
    stage: str | None = None
    publisher: str = ""
    urgent: bool = False
    sha256: str | None = None
    name: str = ""
    type: str = ""
    filetype: str = ""
    relativePath: str = ""  # noqa: N815 - Uppy writes it so


class VersionError(InputError):
    """``Tus-Resumable`` is absent, or names another version."""

    code = "tus-version"
    http_status = 412


class ContentTypeError(InputError):
    """The body is not said to be a part of an upload."""

    code = "content-type"
    http_status = 415


def check_version(given: str | None) -> None:
    """VersionError unless the client speaks this version."""
    if given != VERSION:
        raise VersionError(f"Tus-Resumable: {VERSION} expected" + (f", not {given[:20]!r}" if given else ""))


def check_content_type(given: str | None) -> None:
    """ContentTypeError unless it is that of a part of an upload."""
    if given != CONTENT_TYPE:
        raise ContentTypeError(f"Content-Type: {CONTENT_TYPE} expected")


def number(header: str, given: str | None) -> int:
    """A length or an offset."""
    if given is None or not _NUMBER.fullmatch(given):
        raise InputError(f"{header}: a number of bytes, of at most 18 digits, expected")
    return int(given)


def checksum(given: str | None) -> Checksum | None:
    """``Upload-Checksum``: an algorithm and the base64 of its digest."""
    if given is None:
        return None
    algorithm, _, text = given.partition(" ")
    digest = from_base64(text)
    if digest is None or ALGORITHMS.get(algorithm) != len(digest):
        raise InputError(f"Upload-Checksum: one of {', '.join(ALGORITHMS)}, a space, and the base64 of the digest expected", code="bad-checksum")
    return Checksum(algorithm, digest)


def destination(given: str | None) -> Destination:
    """``Upload-Metadata``, as ``Metadata`` has it. What it names is checked by whoever begins the upload."""
    asked = convert(metadata(given or ""), Metadata, "Upload-Metadata")
    path = asked.path or asked.filename
    if path is None:
        raise InputError("Upload-Metadata: path (or filename) is missing")
    expect = None if asked.sha256 is None else Digest.parse(asked.sha256)
    return Destination(asked.share, path, asked.stage, asked.publisher, asked.urgent, expect, given or "")


def metadata(given: str) -> dict[str, str]:
    """Pairs of a key and the base64 of a value, with commas between."""
    if len(given) > METADATA_CHARS_MAX:
        raise InputError(f"Upload-Metadata: at most {METADATA_CHARS_MAX} characters")
    found: dict[str, str] = {}
    for pair in given.split(",") if given.strip() else ():
        key, _, text = pair.strip().partition(" ")
        value = from_base64(text.strip())
        if not _KEY.fullmatch(key) or value is None or key in found:
            raise InputError("Upload-Metadata: different keys, each with a space and the base64 of a value, and commas between them expected")
        try:
            found[key] = value.decode()
        except UnicodeDecodeError:
            raise InputError(f"Upload-Metadata: {key}: UTF-8 expected") from None
    return found


def from_base64(text: str) -> bytes | None:
    """The bytes; None if it is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
