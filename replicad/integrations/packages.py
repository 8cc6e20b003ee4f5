"""What an installer package says about itself: identifier, version and title, from the ``Distribution`` of a product archive or the ``PackageInfo`` of a component.

A package is a xar archive: a header, a table of contents in compressed XML, and a heap. It comes from strangers, so everything is bounded before it is believed: sizes, depth, the number of elements;
document types and entities are refused, nothing is written anywhere, and only what is asked for is decompressed.
"""

from __future__ import annotations

import bz2
import lzma
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn, Protocol
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from replicad.errors import InputError

HEADER = struct.Struct(">4sHHQQI")
MAGIC = b"xar!"
HEADER_BYTES_MAX = 1024
TABLE_BYTES_MAX = 16 << 20
"""Of the table of contents, packed and unpacked: packages list a handful of files, the payload is one of them."""
MEMBER_BYTES_MAX = 8 << 20
DEPTH_MAX = 64
ELEMENTS_MAX = 200_000
TEXT_MAX = 255


@dataclass(frozen=True, slots=True)
class Package:
    """``title`` is empty if the package has none."""

    identifier: str
    version: str
    title: str


class _Decompressor(Protocol):
    def decompress(self, packed: bytes, max_length: int) -> bytes:
        """At most so many bytes."""


_ENCODINGS: dict[str, Callable[[], _Decompressor]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bzip2": bz2.BZ2Decompressor,
    "application/x-lzma": lzma.LZMADecompressor,
    "application/x-xz": lzma.LZMADecompressor,
}
_PLAIN = "application/octet-stream"


def read(fd: int) -> Package:
    """From a descriptor, which stays open. InputError for whatever is no package or does not say who it is; OSError. Blocks: call it in a thread."""
    size = os.fstat(fd).st_size
    toc, heap = _table(fd, size)
    distribution = _member(fd, size, heap, _named(toc, "Distribution"))
    components = [_member(fd, size, heap, found) for found in _component_members(toc)]
    found = _from_distribution(distribution) if distribution is not None else None
    for component in components if found is None else ():
        found = found or _package(component, component.get("identifier"), component.get("version"), "") if component is not None else found
    if found is None:
        raise InputError("the package does not say its identifier and version")
    title = _text(distribution.findtext("title")) if distribution is not None else ""
    return Package(found.identifier, found.version, title)


def parse_xml(encoded: bytes) -> Element:
    """The document without types and entities, within DEPTH_MAX and ELEMENTS_MAX; InputError."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = count = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > DEPTH_MAX or count > ELEMENTS_MAX:
            raise InputError(f"XML of more than {DEPTH_MAX} levels or {ELEMENTS_MAX} elements")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> NoReturn:
        raise InputError("XML with a document type")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(encoded, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, ValueError, LookupError) as error:
        raise InputError(f"not XML: {type(error).__name__}") from None


def _table(fd: int, size: int) -> tuple[Element, int]:
    """The ``toc`` element and where the heap begins."""
    header = os.pread(fd, HEADER.size, 0)
    if len(header) < HEADER.size or header[: len(MAGIC)] != MAGIC:
        raise InputError("not a xar archive")
    _, header_bytes, _, packed, unpacked, _ = HEADER.unpack(header)
    if not HEADER.size <= header_bytes <= HEADER_BYTES_MAX or packed > TABLE_BYTES_MAX or unpacked > TABLE_BYTES_MAX or header_bytes + packed > size:
        raise InputError("a table of contents out of bounds")
    toc = parse_xml(_unpacked(os.pread(fd, packed, header_bytes), zlib.decompressobj(), TABLE_BYTES_MAX)).find("toc")
    if toc is None:
        raise InputError("a xar archive without a table of contents")
    return toc, header_bytes + packed


def _named(parent: Element, name: str) -> Element | None:
    return next((file for file in parent.iterfind("file") if file.findtext("name") == name), None)


def _component_members(toc: Element) -> Iterator[Element]:
    """The ``PackageInfo`` of a component package, or of the first component of a product archive."""
    for parent in (toc, *toc.iterfind("file")):
        found = _named(parent, "PackageInfo")
        if found is not None:
            yield found
            return


def _member(fd: int, size: int, heap: int, file: Element | None) -> Element | None:
    """The XML that a member contains."""
    if file is None:
        return None
    try:
        offset, length = (int(file.findtext(f"data/{name}") or -1) for name in ("offset", "length"))
    except ValueError:
        offset = length = -1
    if not 0 <= offset <= size or not 0 <= length <= MEMBER_BYTES_MAX or heap + offset + length > size:
        raise InputError("a member out of bounds")
    encoding = file.find("data/encoding")
    style = _PLAIN if encoding is None else encoding.get("style", _PLAIN)
    packed = os.pread(fd, length, heap + offset)
    if style == _PLAIN:
        return parse_xml(packed)
    if style not in _ENCODINGS:
        raise InputError(f"a member in the encoding {style[:60]!a}")
    return parse_xml(_unpacked(packed, _ENCODINGS[style](), MEMBER_BYTES_MAX))


def _unpacked(packed: bytes, decompressor: _Decompressor, bytes_max: int) -> bytes:
    try:
        found = decompressor.decompress(packed, bytes_max + 1)
    except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise InputError(f"cannot be decompressed: {type(error).__name__}") from None
    if len(found) > bytes_max:
        raise InputError(f"more than {bytes_max} bytes when decompressed")
    return found


def _from_distribution(distribution: Element) -> Package | None:
    """Of the product, else of its first component that says both."""
    for element in (*distribution.iterfind("product"), *distribution.iter("pkg-ref")):
        found = _package(element, element.get("id"), element.get("version"), "")
        if found is not None:
            return found
    return None


def _package(_: Element, identifier: str | None, version: str | None, title: str) -> Package | None:
    name, number = _text(identifier), _text(version)
    return Package(name, number, title) if len(name) > 1 and number else None


def _text(value: str | None) -> str:
    """Printable, on one line, within TEXT_MAX; otherwise as if it was not there."""
    text = " ".join((value or "").split())
    return text if text.isprintable() and len(text) <= TEXT_MAX else ""
