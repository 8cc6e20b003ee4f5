"""A peer door that speaks HTTP and lies. Each style is one thing that no honest node does (or, for "silent" and "reset", that happens to honest ones too)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from replicad.model.manifest import Manifest
from support.data_node import Door

_RANGE = re.compile(rb"Range: bytes=(\d+)-(\d+)")
OFFENCES = {
    "flip": "bad-chunk",
    "short-said": "short-body",
    "short-cut": "short-body",
    "long-said": "long-body",
    "long-sent": "long-body",
    "endless-after": "long-body",
    "endless-chunked": "bad-answer",
    "endless-unsaid": "bad-answer",
    "other-range": "bad-answer",
    "garbage": "bad-answer",
    "endless-head": "bad-answer",
    "lacks": "false-have",
    "other-manifest": "bad-manifest",
    "endless-manifest": "long-body",
}
HARMLESS = ("silent", "reset", "busy", "refuses", "broken")


def lying_door(style: str, content: bytes, manifest: Manifest, asked: list[bytes] | None = None) -> Door:
    """A door that answers everything in that style. ``asked`` collects the heads of the requests."""

    async def door(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if asked is not None:
                asked.append(head)
            if b" /peer/v1/manifests/" in head.split(b"\r\n")[0]:
                if not await _answer_manifest(writer, style, manifest):
                    return
            elif not await _answer_range(writer, style, content, head):
                return

    return door


async def _answer_manifest(writer: asyncio.StreamWriter, style: str, manifest: Manifest) -> bool:
    body = manifest.encoded
    if style == "other-manifest":
        body = Manifest(manifest.content, manifest.size, manifest.chunk_size, bytes(len(manifest.chunks))).encoded
    if style == "endless-manifest":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        return await _pour(writer)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    return True


async def _answer_range(writer: asyncio.StreamWriter, style: str, content: bytes, head: bytes) -> bool:
    match = _RANGE.search(head)
    assert match is not None, head
    start, stop = int(match[1]), int(match[2]) + 1
    body = content[start:stop]
    answers: dict[str, Callable[[], bytes]] = {
        "flip": lambda: _partial(start, stop, len(content), bytes([body[0] ^ 1]) + body[1:]),
        "short-said": lambda: _partial(start, stop, len(content), body[:-1]),
        "short-cut": lambda: _partial(start, stop, len(content), body)[: len(body) // 2],
        "long-said": lambda: _partial(start, stop, len(content), body + b"x"),
        "long-sent": lambda: _partial(start, stop, len(content), body) + b"more",
        "endless-after": lambda: _partial(start, stop, len(content), body),
        "endless-chunked": lambda: (
            b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes %d-%d/%d\r\n\r\n" % (start, stop - 1, len(content))
        ),
        "endless-unsaid": lambda: b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %d-%d/%d\r\n\r\n" % (start, stop - 1, len(content)),
        "other-range": lambda: _partial(0 if start else 1, stop, len(content), body),
        "garbage": lambda: b"\x00" * 100 + b"\r\n\r\n",
        "endless-head": lambda: b"HTTP/1.1 206 Partial Content\r\nX: ",
        "lacks": lambda: b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
        "busy": lambda: b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}",
        "refuses": lambda: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}",
        "broken": lambda: b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}",
        "silent": lambda: b"",
        "reset": lambda: b"",
    }
    writer.write(answers.get(style, lambda: _partial(start, stop, len(content), body))())
    await writer.drain()
    if style == "silent":
        await asyncio.Event().wait()
    if style == "reset":
        writer.transport.abort()
        return False
    if style.startswith("endless") and style != "endless-manifest":
        return await _pour(writer)
    return style != "short-cut"


def _partial(start: int, stop: int, size: int, body: bytes) -> bytes:
    return b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\n\r\n" % (len(body), start, stop - 1, size) + body


async def _pour(writer: asyncio.StreamWriter) -> bool:
    """Send until the other side has had enough."""
    while True:
        writer.write(bytes(65536))
        await writer.drain()
