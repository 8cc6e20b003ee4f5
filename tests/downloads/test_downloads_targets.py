"""Request targets and content types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import InputError
from replicad.model.ids import Digest
from replicad.server.downloads.content_type import OCTETS, content_type
from replicad.server.downloads.targets import BlobTarget, DirectoryTarget, FileTarget, Page, Target, parse

HASH = "0123456789abcdef" * 4
FOUND: dict[str, tuple[str, Target]] = {
    "plain": ("/jamf/Firefox.pkg", FileTarget("jamf", "firefox.pkg")),
    "deep": ("/munki/pkgs/apps/Firefox-145.0.pkg", FileTarget("munki", "pkgs/apps/firefox-145.0.pkg")),
    "query": ("/jamf/a.pkg?token=x/y%zz", FileTarget("jamf", "a.pkg")),
    "escaped space": ("/jamf/a%20b.pkg", FileTarget("jamf", "a b.pkg")),
    "plus is plus": ("/jamf/a+b.pkg", FileTarget("jamf", "a+b.pkg")),
    "escaped percent": ("/jamf/100%25.pkg", FileTarget("jamf", "100%.pkg")),
    "escaped once": ("/jamf/a%2520b", FileTarget("jamf", "a%20b")),
    "escaped UTF-8": ("/jamf/%C3%9Cbung.pkg", FileTarget("jamf", "übung.pkg")),
    "escaped and decomposed": ("/jamf/U%CC%88bung.pkg", FileTarget("jamf", "übung.pkg")),
    "bytes beyond ASCII as they are": ("/jamf/\udcc3\udc9cbung.pkg", FileTarget("jamf", "übung.pkg")),
    "escaped slash": ("/jamf/a%2Fb", FileTarget("jamf", "a/b")),
    "escaped share": ("/%6aamf/a", FileTarget("jamf", "a")),
    "absolute form": ("http://example.org:8480/jamf/a", FileTarget("jamf", "a")),
    "absolute form, https": ("HTTPS://example.org/jamf/a?x", FileTarget("jamf", "a")),
    "a share's root": ("/jamf/", DirectoryTarget("jamf", "")),
    "a directory": ("/jamf/A/b%20c/?after=x", DirectoryTarget("jamf", "a/b c")),
    "blob": (f"/-/blob/{HASH}", BlobTarget(Digest.parse(HASH))),
    "health": ("/-/health", Page.HEALTH),
    "ready": ("/-/ready?verbose", Page.READY),
}
NOWHERE = {
    "root": "/",
    "only a share": "/jamf",
    "two slashes at the end": "/jamf/a//",
    "only slashes": "/jamf//",
    "two slashes": "/jamf//a",
    "leading slashes": "//jamf/a",
    "dot": "/jamf/./a",
    "dot dot": "/jamf/../jamf/a",
    "escaped dot dot": "/jamf/%2e%2e/etc/passwd",
    "dot dot behind an escaped slash": "/jamf/..%2f..%2fetc/passwd",
    "double slash by escape": "/jamf/%2Fetc/passwd",
    "backslash": "/jamf/..%5C..%5Cwindows",
    "NUL": "/jamf/a%00.pkg",
    "line end": "/jamf/a%0d%0aX: y",
    "trailing dot": "/jamf/a.",
    "share in capitals": "/Jamf/a",
    "share with a slash": "/ja%2Fmf/a",
    "share starting with a dot": "/.well-known/a",
    "own page that does not exist": "/-/config",
    "own root": "/-/",
    "blob, short": "/-/blob/0123",
    "blob in capitals": f"/-/blob/{HASH.upper()}",
    "blob with more": f"/-/blob/{HASH}/x",
    "unassigned code point": "/jamf/%F0%9F%AB%A8",
    "too long a segment": f"/jamf/{'a' * 256}",
    "too long a path": f"/jamf/{'/'.join(['a' * 200] * 6)}",
    "absolute form without a path": "http://example.org",
}
BAD = {
    "bad escape": "/jamf/a%zz",
    "short escape": "/jamf/a%2",
    "bad escape in the share": "/%/a",
    "not UTF-8": "/jamf/%ff",
    "overlong UTF-8": "/jamf/%c0%af",
    "surrogate": "/jamf/%ed%a0%80",
    "raw byte that is not UTF-8": "/jamf/\udcff",
    "asterisk": "*",
    "authority": "example.org:443",
    "another scheme": "ftp://example.org/jamf/a",
    "empty": "",
}


@pytest.mark.parametrize(("target", "expected"), FOUND.values(), ids=FOUND)
def test_found(target: str, expected: Target) -> None:
    assert parse(target) == expected


@pytest.mark.parametrize("target", NOWHERE.values(), ids=NOWHERE)
def test_nowhere(target: str) -> None:
    assert parse(target) is None


@pytest.mark.parametrize("target", BAD.values(), ids=BAD)
def test_bad(target: str) -> None:
    with pytest.raises(InputError):
        parse(target)


@given(st.text(st.characters(codec="latin-1"), max_size=700))
def test_any_target_is_an_answer_or_an_input_error(text: str) -> None:
    for target in (text, f"/jamf/{text}", f"/-/{text}"):
        try:
            found = parse(target)
        except InputError:
            continue
        assert found is None or isinstance(found, FileTarget | DirectoryTarget | BlobTarget | Page)


TYPES = {
    "Firefox-145.0.pkg": OCTETS,
    "a/Firefox.PKG": OCTETS,
    "Xcode.dmg": "application/x-apple-diskimage",
    "catalogs/all": OCTETS,
    "pkgsinfo/a.plist": "application/xml",
    "wifi.mobileconfig": "application/x-apple-aspen-config",
    "notes.txt": "text/plain; charset=utf-8",
    "icons/Firefox.png": "image/png",
    "data.json": "application/json",
    "some.directory/file": OCTETS,
    ".plist": OCTETS,
    "a.pkg.zip": "application/zip",
    "a.unknown": OCTETS,
}


@pytest.mark.parametrize(("path", "expected"), TYPES.items())
def test_content_type(path: str, expected: str) -> None:
    assert content_type(path) == expected
