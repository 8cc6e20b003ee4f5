"""The table of requests, from RFC 9110, 9112 and 9530: what is asked, and every byte of the answer that matters."""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import dataclass, field

from downloads_world import EARLIER_DATE, LATER_DATE, MODIFIED_DATE, Reply, World

SMALL = random.Random(1).randbytes(5000)
LARGE = random.Random(2).randbytes(700_001)
SMALL_SHA = hashlib.sha256(SMALL).hexdigest()
TAG = f'"{SMALL_SHA}"'
LARGE_SHA = hashlib.sha256(LARGE).hexdigest()
OTHER_TAG = f'"{LARGE_SHA}"'
SECRET = b"for members only"
BETA = b"at a stage that is not carried here"
SECRET_SHA = hashlib.sha256(SECRET).hexdigest()
FAR_SHA = hashlib.sha256(b"still on its way").hexdigest()
ABSENT: None = None
SMALL_DIGEST = f"sha-256=:{base64.b64encode(hashlib.sha256(SMALL).digest()).decode()}:"


@dataclass
class Case:
    """``target`` with GET and ``headers``, or any bytes as ``raw``. ``fields``: exact values, None = must be absent. ``body``: exact bytes; None = not looked at. ``parts``: [(Content-Range, bytes)]."""

    target: str = "/jamf/small.pkg"
    headers: tuple[str, ...] = ()
    method: str = "GET"
    raw: bytes = b""
    status: int = 200
    fields: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    parts: list[tuple[str, bytes]] | None = None
    closed: bool = False


def ranged(range_: str, *headers: str, **expected: object) -> Case:
    return Case(headers=(f"Range: {range_}", *headers), **expected)  # type: ignore[arg-type]


def partial(start: int, stop: int, *headers: str, range_: str) -> Case:
    return ranged(
        range_, *headers, status=206, body=SMALL[start:stop], fields={"content-range": f"bytes {start}-{stop - 1}/5000", "content-length": str(stop - start)}
    )


WHOLE = {"content-length": "5000", "content-range": ABSENT, "etag": TAG, "last-modified": MODIFIED_DATE}
NOT_HERE = {"etag": ABSENT, "last-modified": ABSENT, "retry-after": ABSENT, "content-type": "text/plain; charset=utf-8"}
GONE = b"404 Not Found\n"

CASES: dict[str, Case] = {
    # whole files
    "whole": Case(
        body=SMALL,
        fields={
            **WHOLE,
            "accept-ranges": "bytes",
            "repr-digest": SMALL_DIGEST,
            "content-type": "application/octet-stream",
            "cache-control": "no-cache",
            "x-content-type-options": "nosniff",
            "server": "replicad",
            "connection": ABSENT,
        },
    ),
    "whole, large": Case("/jamf/large.pkg", body=LARGE, fields={"content-length": "700001", "etag": OTHER_TAG}),
    "empty": Case("/jamf/empty", body=b"", fields={"content-length": "0"}),
    "deep path": Case("/jamf/a/b/c.plist", body=b"<plist/>", fields={"content-type": "application/xml"}),
    "other case of letters": Case("/jamf/SMALL.PKG", body=SMALL),
    "decomposed name": Case("/jamf/U%CC%88bung.dmg", body=b"umlaut", fields={"content-type": "application/x-apple-diskimage"}),
    "composed name": Case("/jamf/%C3%9Cbung.dmg", body=b"umlaut"),
    "name with a space": Case("/jamf/a%20b%2B.txt", body=b"space", fields={"content-type": "text/plain; charset=utf-8"}),
    "query": Case("/jamf/small.pkg?v=1&x=%zz", body=SMALL),
    "absolute form": Case("http://elsewhere.example/jamf/small.pkg", body=SMALL),
    "HEAD": Case(method="HEAD", body=b"", fields=WHOLE),
    "HEAD, large": Case("/jamf/large.pkg", method="HEAD", body=b"", fields={"content-length": "700001"}),
    "Want-Repr-Digest changes nothing": Case(headers=("Want-Repr-Digest: sha-512=10",), fields={"repr-digest": SMALL_DIGEST}),
    "a range has the digest of the whole": ranged("bytes=0-9", status=206, body=SMALL[:10], fields={"repr-digest": SMALL_DIGEST, "content-digest": ABSENT}),
    "HEAD ignores Range": Case(method="HEAD", headers=("Range: bytes=0-1",), body=b"", fields=WHOLE),
    "Accept-Encoding changes nothing": Case(headers=("Accept-Encoding: gzip, br",), body=SMALL, fields={"content-encoding": ABSENT, "content-length": "5000"}),
    # one range
    "range at the start": partial(0, 100, range_="bytes=0-99"),
    "range in the middle": partial(1000, 2001, range_="bytes=1000-2000"),
    "range to the end": partial(4000, 5000, range_="bytes=4000-"),
    "suffix": partial(4990, 5000, range_="bytes=-10"),
    "suffix longer than the file": partial(0, 5000, range_="bytes=-9999"),
    "whole as a range": partial(0, 5000, range_="bytes=0-"),
    "range beyond the end": partial(4999, 5000, range_="bytes=4999-99999"),
    "one byte": partial(17, 18, range_="bytes=17-17"),
    "range with spaces and capitals": partial(0, 2, range_="BYTES = 0-1 "),
    "range of a large file": Case(
        "/jamf/large.pkg",
        headers=("Range: bytes=100000-600000",),
        status=206,
        body=LARGE[100_000:600_001],
        fields={"content-range": "bytes 100000-600000/700001", "etag": OTHER_TAG, "content-length": "500001"},
    ),
    "range keeps validators": ranged("bytes=0-0", status=206, fields={"etag": TAG, "last-modified": MODIFIED_DATE, "accept-ranges": "bytes"}),
    "range beyond: 416": ranged("bytes=5000-", status=416, fields={"content-range": "bytes */5000", "etag": ABSENT}),
    "suffix of nothing: 416": ranged("bytes=-0", status=416, fields={"content-range": "bytes */5000"}),
    "range of an empty file": Case("/jamf/empty", headers=("Range: bytes=0-",), body=b"", fields={"content-range": ABSENT}),
    "suffix of an empty file": Case("/jamf/empty", headers=("Range: bytes=-5",), body=b""),
    "another unit": ranged("items=0-5", body=SMALL, fields=WHOLE),
    "nonsense": ranged("bytes=x-y", body=SMALL, fields=WHOLE),
    "backwards": ranged("bytes=10-5", body=SMALL, fields=WHOLE),
    "Range twice": Case(headers=("Range: bytes=0-1", "Range: bytes=2-3"), body=SMALL, fields=WHOLE),
    "huge numbers": ranged("bytes=0-99999999999999999999", status=206, body=SMALL),
    # several ranges
    "two ranges": ranged(
        "bytes=0-1,4000-4009",
        status=206,
        parts=[("bytes 0-1/5000", SMALL[:2]), ("bytes 4000-4009/5000", SMALL[4000:4010])],
        fields={"content-range": ABSENT, "etag": TAG},
    ),
    "first and last byte": ranged("bytes=0-0,-1", status=206, parts=[("bytes 0-0/5000", SMALL[:1]), ("bytes 4999-4999/5000", SMALL[-1:])]),
    "in the order asked": ranged("bytes=-1,0-0", status=206, parts=[("bytes 4999-4999/5000", SMALL[-1:]), ("bytes 0-0/5000", SMALL[:1])]),
    "large parts": Case(
        "/jamf/large.pkg",
        headers=("Range: bytes=0-199999,300000-499999,-1",),
        status=206,
        parts=[
            ("bytes 0-199999/700001", LARGE[:200_000]),
            ("bytes 300000-499999/700001", LARGE[300_000:500_000]),
            ("bytes 700000-700000/700001", LARGE[700_000:]),
        ],
    ),
    "overlapping ranges are one": partial(0, 301, range_="bytes=0-200,100-300"),
    "touching ranges are one": partial(0, 300, range_="bytes=0-99,100-299"),
    "close ranges are one": partial(0, 110, range_="bytes=0-9,100-109"),
    "the same range again and again": partial(5, 6, range_=f"bytes={','.join(['5-5'] * 60)}"),
    "one of two beyond": partial(0, 2, range_="bytes=0-1,6000-"),
    "all beyond: 416": ranged("bytes=5000-,6000-7000", status=416, fields={"content-range": "bytes */5000"}),
    "one bad among good": ranged("bytes=0-1,9-8", body=SMALL, fields=WHOLE),
    "too many ranges": ranged(f"bytes={','.join(f'{n}-{n}' for n in range(65))}", body=SMALL, fields=WHOLE),
    "2,000 ranges": ranged(f"bytes={'0-,' * 2000}", body=SMALL, fields=WHOLE),
    "10,000 ranges": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: x\r\nRange: bytes=%b\r\n\r\n" % (b"0-0," * 10_000), status=431, closed=True),
    "a range of thousands of digits": ranged(f"bytes={'9' * 5000}-", body=SMALL, fields=WHOLE),
    # conditions
    "If-None-Match same": Case(
        headers=(f"If-None-Match: {TAG}",),
        status=304,
        body=b"",
        fields={"etag": TAG, "last-modified": MODIFIED_DATE, "cache-control": "no-cache", "content-type": ABSENT},
    ),
    "If-None-Match weak": Case(headers=(f"If-None-Match: W/{TAG}",), status=304),
    "If-None-Match list": Case(headers=(f"If-None-Match: {OTHER_TAG}, {TAG}",), status=304),
    "If-None-Match two fields": Case(headers=(f"If-None-Match: {OTHER_TAG}", f"If-None-Match: {TAG}"), status=304),
    "If-None-Match any": Case(headers=("If-None-Match: *",), status=304),
    "If-None-Match other": Case(headers=(f"If-None-Match: {OTHER_TAG}",), body=SMALL),
    "If-None-Match with HEAD": Case(method="HEAD", headers=(f"If-None-Match: {TAG}",), status=304),
    "If-Modified-Since same": Case(headers=(f"If-Modified-Since: {MODIFIED_DATE}",), status=304),
    "If-Modified-Since later": Case(headers=(f"If-Modified-Since: {LATER_DATE}",), status=304),
    "If-Modified-Since earlier": Case(headers=(f"If-Modified-Since: {EARLIER_DATE}",), body=SMALL),
    "If-Modified-Since in an old form": Case(headers=("If-Modified-Since: Tuesday, 14-Nov-23 22:13:20 GMT",), status=304),
    "If-Modified-Since nonsense": Case(headers=("If-Modified-Since: now",), body=SMALL),
    "tag beats date: changed": Case(headers=(f"If-None-Match: {OTHER_TAG}", f"If-Modified-Since: {LATER_DATE}"), body=SMALL),
    "tag beats date: same": Case(headers=(f"If-None-Match: {TAG}", f"If-Modified-Since: {EARLIER_DATE}"), status=304),
    "If-Match same": Case(headers=(f"If-Match: {TAG}",), body=SMALL),
    "If-Match any": Case(headers=("If-Match: *",), body=SMALL),
    "If-None-Match any, HEAD": Case(method="HEAD", headers=("If-None-Match: *",), status=304),
    "If-None-Match unquoted": Case(headers=(f"If-None-Match: {SMALL_SHA}",), body=SMALL),
    "If-None-Match cut off": Case(headers=(f"If-None-Match: {TAG[:-1]}",), body=SMALL),
    "If-None-Match empty list": Case(headers=("If-None-Match: ,",), body=SMALL),
    "If-None-Match other with a range": partial(0, 2, f"If-None-Match: {OTHER_TAG}", range_="bytes=0-1"),
    "If-Modified-Since with an earlier date and a range": partial(0, 2, f"If-Modified-Since: {EARLIER_DATE}", range_="bytes=0-1"),
    "If-Match list": Case(headers=(f"If-Match: {OTHER_TAG}, {TAG}",), body=SMALL),
    "If-Match nonsense": Case(headers=("If-Match: x",), status=412),
    "If-Match of HEAD": Case(method="HEAD", headers=(f"If-Match: {OTHER_TAG}",), status=412, body=b""),
    "If-Unmodified-Since later": Case(headers=(f"If-Unmodified-Since: {LATER_DATE}",), body=SMALL),
    "If-Unmodified-Since nonsense": Case(headers=("If-Unmodified-Since: yesterday",), body=SMALL),
    "If-Match other": Case(headers=(f"If-Match: {OTHER_TAG}",), status=412, fields={"etag": ABSENT}),
    "If-Match weak": Case(headers=(f"If-Match: W/{TAG}",), status=412),
    "If-Match beats If-Unmodified-Since": Case(headers=(f"If-Match: {TAG}", f"If-Unmodified-Since: {EARLIER_DATE}"), body=SMALL),
    "If-Unmodified-Since same": Case(headers=(f"If-Unmodified-Since: {MODIFIED_DATE}",), body=SMALL),
    "If-Unmodified-Since earlier": Case(headers=(f"If-Unmodified-Since: {EARLIER_DATE}",), status=412),
    "If-Match before If-None-Match": Case(headers=(f"If-Match: {OTHER_TAG}", f"If-None-Match: {TAG}"), status=412),
    "a condition on what is not there": Case("/jamf/none", headers=("If-Match: *",), status=404),
    "condition before range: 304": ranged("bytes=0-1", f"If-None-Match: {TAG}", status=304),
    "condition before range: 412": ranged("bytes=0-1", f"If-Match: {OTHER_TAG}", status=412),
    "condition before range: 304 rather than 416": ranged("bytes=9999-", f"If-None-Match: {TAG}", status=304),
    # If-Range
    "If-Range same tag": partial(100, 200, f"If-Range: {TAG}", range_="bytes=100-199"),
    "If-Range other tag": ranged("bytes=100-199", f"If-Range: {OTHER_TAG}", body=SMALL, fields=WHOLE),
    "If-Range weak tag": ranged("bytes=100-199", f"If-Range: W/{TAG}", body=SMALL, fields=WHOLE),
    "If-Range unquoted tag": ranged("bytes=100-199", f"If-Range: {SMALL_SHA}", body=SMALL, fields=WHOLE),
    "If-Range same date": partial(100, 200, f"If-Range: {MODIFIED_DATE}", range_="bytes=100-199"),
    "If-Range earlier date": ranged("bytes=100-199", f"If-Range: {EARLIER_DATE}", body=SMALL, fields=WHOLE),
    "If-Range later date": ranged("bytes=100-199", f"If-Range: {LATER_DATE}", body=SMALL, fields=WHOLE),
    "If-Range without Range": Case(headers=(f"If-Range: {TAG}",), body=SMALL, fields=WHOLE),
    "If-Range other tag, range beyond": ranged("bytes=9999-", f"If-Range: {OTHER_TAG}", body=SMALL, fields=WHOLE),
    "If-Range same tag, range beyond": ranged("bytes=9999-", f"If-Range: {TAG}", status=416),
    "If-Range and two ranges": ranged(
        "bytes=0-0,-1", f"If-Range: {TAG}", status=206, parts=[("bytes 0-0/5000", SMALL[:1]), ("bytes 4999-4999/5000", SMALL[-1:])]
    ),
    # what is not shown
    "no such file": Case("/jamf/none.pkg", status=404, body=GONE, fields=NOT_HERE),
    "no such share": Case("/none/small.pkg", status=404, body=GONE, fields=NOT_HERE),
    "private share": Case("/customers/secret.pkg", status=404, body=GONE, fields=NOT_HERE),
    "private share, no such file": Case("/customers/none.pkg", status=404, body=GONE, fields=NOT_HERE),
    "known but not here": Case("/jamf/far.pkg", status=404, body=GONE, fields=NOT_HERE),
    "known but not here, with its tag": Case("/jamf/far.pkg", headers=(f'If-None-Match: "{FAR_SHA}"',), status=404),
    "listing": Case("/jamf/", status=404, body=GONE),
    "share without a slash": Case("/jamf", status=404),
    "root": Case("/", status=404),
    "directory": Case("/jamf/a/b", status=404),
    "up and out": Case("/jamf/../../../etc/passwd", status=404, body=GONE),
    "up and out, escaped": Case("/jamf/%2e%2e/%2e%2e/etc/passwd", status=404, body=GONE),
    "NUL": Case("/jamf/small.pkg%00.txt", status=404),
    "HEAD of what is not there": Case("/jamf/none.pkg", method="HEAD", status=404, body=b"", fields={"content-length": str(len(GONE))}),
    "bad escape": Case("/jamf/%zz", status=400, fields=NOT_HERE),
    "slashes": Case("/jamf//small.pkg", status=404),
    "two slashes at the start": Case("//jamf/small.pkg", status=404),
    "an escaped slash is a slash": Case("/jamf/a%2Fb%2fc.plist", body=b"<plist/>"),
    "the share escaped": Case("/j%61mf/small.pkg", body=SMALL),
    "the share in capitals": Case("/JAMF/small.pkg", status=404, body=GONE),
    "backslash": Case("/jamf/..\\small.pkg", status=404),
    "escaped line end": Case("/jamf/small.pkg%0d%0aX: y", raw=b"GET /jamf/small.pkg%0d%0aX:%20y HTTP/1.1\r\nHost: x\r\n\r\n", status=404, body=GONE),
    "escaped twice": Case("/jamf/%2561", status=404),
    "trailing slash": Case("/jamf/small.pkg/", status=404),
    "trailing dot": Case("/jamf/small.pkg.", status=404),
    "not UTF-8": Case("/jamf/%ff%fe", status=400),
    # blobs and the node's own pages
    "blob": Case(f"/-/blob/{SMALL_SHA}", body=SMALL, fields={"etag": TAG, "last-modified": ABSENT, "cache-control": "max-age=31536000, immutable"}),
    "blob, HEAD": Case(f"/-/blob/{SMALL_SHA}", method="HEAD", body=b"", fields={"content-length": "5000"}),
    "blob, range": Case(f"/-/blob/{SMALL_SHA}", headers=("Range: bytes=1-3",), status=206, body=SMALL[1:4]),
    "blob, same tag": Case(f"/-/blob/{SMALL_SHA}", headers=(f"If-None-Match: {TAG}",), status=304),
    "blob, range beyond": Case(f"/-/blob/{SMALL_SHA}", headers=("Range: bytes=5000-",), status=416),
    "blob of a private share": Case(f"/-/blob/{SECRET_SHA}", status=404, body=GONE, fields=NOT_HERE),
    "blob of a stage that is not carried": Case(f"/-/blob/{hashlib.sha256(BETA).hexdigest()}", status=404, body=GONE, fields=NOT_HERE),
    "blob that is not here": Case(f"/-/blob/{FAR_SHA}", status=404, body=GONE),
    "blob of nothing": Case(f"/-/blob/{'0' * 64}", status=404, body=GONE),
    "blob in capitals": Case(f"/-/blob/{SMALL_SHA.upper()}", status=404),
    "health": Case("/-/health", body=b'{"status": "ok"}\n', fields={"content-type": "application/json", "cache-control": "no-store"}),
    "health, HEAD": Case("/-/health", method="HEAD", body=b"", fields={"content-length": "17"}),
    "ready": Case("/-/ready", body=b'{"ready": true, "waiting_for": []}\n'),
    "other page": Case("/-/metrics", status=404),
    # methods
    **{
        method: Case(method=method, status=405, fields={"allow": "GET, HEAD", "content-length": "23"})
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND")
    },
    "POST without a body": Case(method="POST", headers=("Content-Length: 0",), status=405, fields={"allow": "GET, HEAD"}),
    "POST with a body": Case(raw=b"POST /jamf/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", status=405, closed=True),
    "PUT expecting 100-continue": Case(
        raw=b"PUT /jamf/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", status=405, fields={"connection": "close"}
    ),
    "PUT of nothing, somewhere else": Case("/none/x", method="PUT", status=405),
    "OPTIONS of everything": Case("*", method="OPTIONS", status=405),
    "GET with a body": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody", body=SMALL, closed=True),
    "GET expecting 100-continue": Case(headers=("Expect: 100-continue",), body=SMALL),
    "GET expecting something else": Case(headers=("Expect: miracles",), body=SMALL),
    "an unknown method": Case(raw=b"FETCH /jamf/small.pkg HTTP/1.1\r\nHost: x\r\n\r\n", status=400, closed=True),
    # HTTP versions and connections
    "HTTP/1.0": Case(raw=b"GET /jamf/small.pkg HTTP/1.0\r\n\r\n", body=SMALL, fields={"connection": "close"}, closed=True),
    "HTTP/1.0 keep-alive": Case(raw=b"GET /jamf/small.pkg HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", body=SMALL, fields={"connection": "keep-alive"}),
    "HTTP/1.1 close": Case(headers=("Connection: close",), body=SMALL, fields={"connection": "close"}, closed=True),
    "no Host": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\n\r\n", status=400, closed=True),
    "Host twice": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", status=400, closed=True),
    "Host that is none": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: a b/c\r\n\r\n", status=400, closed=True),
    "Host outside of ASCII": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: \xff\r\n\r\n", status=400, closed=True),
    "Host that is empty": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost:\r\n\r\n", body=SMALL),
    "Host with a port": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: xn--bcher-kva.example_1:8480\r\n\r\n", body=SMALL),
    "Host that is an address": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: [fe80::1%25eth0]:8480\r\n\r\n", body=SMALL),
    "HTTP/2 preface": Case(raw=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status=400, closed=True),
    "upgrade declined": Case(headers=("Connection: Upgrade", "Upgrade: websocket"), body=SMALL, closed=True),
    # garbage, smuggling, size
    "garbage": Case(raw=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", status=400, closed=True),
    "length and chunked": Case(
        raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status=400, closed=True
    ),
    "two lengths": Case(raw=b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nhello", status=400, closed=True),
    "a length that is no number": Case(raw=b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nabcd", status=400, closed=True),
    "bare line feeds": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\nHost: x\n\n", status=400, closed=True),
    "space before the colon": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost : x\r\n\r\n", status=400, closed=True),
    "folded header": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n", status=400, closed=True),
    "NUL in a header": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: x\r\nX-A: b\x00c\r\n\r\n", status=400, closed=True),
    "chunked request": Case(
        raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", body=SMALL, closed=True
    ),
    "bad chunk": Case(raw=b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nbody\r\n0\r\n\r\n", status=400, closed=True),
    "chunked twice": Case(raw=b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", status=400, closed=True),
    "chunked, HTTP/1.0": Case(raw=b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status=405, closed=True),
    "bad chunk of a GET": Case(
        raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-4\r\nbody\r\n0\r\n\r\n", status=400, closed=True
    ),
    "bare line feeds in chunks": Case(raw=b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\nbody\n0\n\n", status=400, closed=True),
    "another coding": Case(raw=b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", status=400, closed=True),
    "a coding that is nothing": Case(
        raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\nGET /jamf/none HTTP/1.1\r\nHost: x\r\n\r\n", status=400, closed=True
    ),
    "length of nothing and chunked": Case(
        raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status=400, closed=True
    ),
    "a bare line feed among header lines": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n", status=400, closed=True),
    "a bare carriage return": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: x\rX-A: b\r\n\r\n", status=400, closed=True),
    "no name": Case(raw=b"GET /jamf/small.pkg HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", status=400, closed=True),
    "HTTP/0.9": Case(raw=b"GET /jamf/small.pkg\r\n\r\n", status=400, closed=True),
    "HTTP/2.0": Case(raw=b"GET /jamf/small.pkg HTTP/2.0\r\nHost: x\r\n\r\n", status=400, closed=True),
    "an unknown version": Case(raw=b"GET /jamf/small.pkg HTTP/3.7\r\nHost: x\r\n\r\n", status=400, closed=True),
    "space in the target": Case(raw=b"GET /jamf/small .pkg HTTP/1.1\r\nHost: x\r\n\r\n", status=400, closed=True),
    "CONNECT": Case(raw=b"CONNECT other.example:443 HTTP/1.1\r\nHost: x\r\n\r\n", status=405, closed=True),
    "long target": Case(f"/jamf/{'a' * 9000}", status=414, closed=True),
    "long but legal target": Case(f"/jamf/{'a' * 7000}", status=404),
    "long header": Case(headers=(f"X-Long: {'a' * 9000}",), status=431, closed=True),
    "many headers": Case(headers=tuple(f"X-{n}: {n}" for n in range(70)), status=400, closed=True),
}


def fill(world: World) -> World:
    """What the cases ask for."""
    world.share("jamf")
    world.share("customers", public=False)
    world.share("early", stages=("dev",))
    world.put("jamf", "small.pkg", SMALL)
    world.put("jamf", "large.pkg", LARGE)
    world.put("jamf", "empty", b"")
    world.put("jamf", "a/b/c.plist", b"<plist/>")
    world.put("jamf", "Übung.dmg", b"umlaut")
    world.put("jamf", "a b+.txt", b"space")
    world.put("jamf", "far.pkg", b"still on its way", held=False)
    world.put("customers", "secret.pkg", SECRET)
    world.put("early", "beta.pkg", BETA)
    return world


def differences(case: Case, reply: Reply, *, through: str = "") -> list[str]:
    """What is not as the case says. ``through`` a proxy: connections and the Server field are its own."""
    fields = {name: value for name, value in case.fields.items() if not through or name not in {"connection", "server"}}
    found = [f"status {reply.status}, expected {case.status}"] if reply.status != case.status else []
    found += [f"{name}: {reply.fields.get(name)!r}, expected {value!r}" for name, value in fields.items() if reply.fields.get(name) != value]
    if case.body is not None and reply.body != case.body:
        found.append(f"body of {len(reply.body)} bytes, expected {len(case.body)} others")
    if case.parts is not None and not found and reply.parts() != case.parts:
        found.append(f"parts {[part for part, _ in reply.parts()]}")
    if not through and reply.closed != (case.closed or case.fields.get("connection") == "close"):
        found.append(f"closed: {reply.closed}")
    return found
