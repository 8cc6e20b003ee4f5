"""SHA-256 that begins anywhere: from its state after any whole number of blocks (FIPS 180-4, section 6.2), which ``hashlib`` neither gives nor takes.

OpenSSL's low-level functions do it, in the very library that ``hashlib`` works with, at its speed: 1.7 GiB/s a core, and the interpreter's lock is released meanwhile. They are deprecated since 3.0 and still
there, and ``SHA256_CTX`` has been the same since 0.9.8; so they are proven when they are first needed, and where they are missing or compute anything else ``available`` says no.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

BLOCK_BYTES = 64
STATE_BYTES = 32
INITIAL = bytes.fromhex("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19")
"""The state before the first byte (FIPS 180-4, section 5.3.3)."""
_WORDS = struct.Struct(">8I")
_LENGTH_MAX = 1 << 61


_Words = ctypes.c_uint32 * 8


class _Context(ctypes.Structure):
    """``SHA256_CTX`` of <openssl/sha.h>."""

    _fields_ = (
        ("h", _Words),
        ("low_bits", ctypes.c_uint32),
        ("high_bits", ctypes.c_uint32),
        ("block", ctypes.c_uint32 * 16),
        ("filled", ctypes.c_uint),
        ("digest_bytes", ctypes.c_uint),
    )
    h: ctypes.Array[ctypes.c_uint32]
    low_bits: int
    high_bits: int
    filled: int
    digest_bytes: int


@dataclass(frozen=True, slots=True)
class Functions:
    """Of the library: ``SHA256_Update`` and ``SHA256_Final``."""

    update: Any
    final: Any


class Sha256:
    """SHA-256 of a message, from its beginning or from the ``state`` after its first ``offset`` bytes, a multiple of 64. Only where it is ``available``; with other ``functions`` it is on trial. Used by one
    thread at a time.
    """

    def __init__(self, state: bytes = INITIAL, offset: int = 0, *, functions: Functions | None = None) -> None:
        found = functions or _library()
        if found is None:
            raise RuntimeError("SHA-256 cannot go on from a state here")
        if len(state) != STATE_BYTES or offset % BLOCK_BYTES or not 0 <= offset < _LENGTH_MAX:
            raise ValueError(f"{len(state)} bytes at offset {offset} are no state")
        self._functions = found
        self._context = _Context(_Words(*_WORDS.unpack(state)), offset << 3 & 0xFFFFFFFF, offset >> 29, digest_bytes=STATE_BYTES)

    def update(self, content: bytes | bytearray | memoryview) -> None:
        """Hash the next bytes, of any buffer without gaps (BufferError). ``bytes`` and what can be written to are read where they are; a view of what cannot is copied first. Blocks."""
        view = memoryview(content)
        if not view.c_contiguous:
            raise BufferError("a buffer without gaps expected")
        if not view.nbytes:
            return
        where = (content if isinstance(content, bytes) else bytes(view)) if view.readonly else ctypes.byref(ctypes.c_char.from_buffer(view))
        self._functions.update(ctypes.byref(self._context), where, view.nbytes)

    @property
    def length(self) -> int:
        """Bytes so far, whole blocks before the state that this one began with included."""
        return (self._context.high_bits << 32 | self._context.low_bits) >> 3

    @property
    def state(self) -> bytes:
        """After a multiple of 64 bytes (else ValueError): with the number of bytes so far all there is to know of them."""
        if self._context.filled:
            raise ValueError("there is a state after whole blocks only")
        return _WORDS.pack(*self._context.h)

    def digest(self) -> bytes:
        """Of the message so far, which may go on."""
        context, found = _Context.from_buffer_copy(self._context), ctypes.create_string_buffer(STATE_BYTES)
        self._functions.final(found, ctypes.byref(context))
        return found.raw

    def copy(self) -> Sha256:
        """Another one that has seen the same bytes."""
        twin = Sha256(functions=self._functions)
        twin._context = _Context.from_buffer_copy(self._context)
        return twin


def available() -> bool:
    """Whether ``Sha256`` works here."""
    return _library() is not None


@cache
def _library() -> Functions | None:
    for library in _libraries():
        try:
            functions = Functions(library.SHA256_Update, library.SHA256_Final)
        except AttributeError:
            continue
        functions.update.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        functions.final.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        if proven(functions):
            return functions
    return None


def _libraries() -> Iterator[ctypes.CDLL]:
    """Whatever may have the functions, the library of ``hashlib`` first; another one is looked for only if that does not do."""
    for find in (_of_hashlib, lambda: ctypes.util.find_library("crypto")):
        try:
            name = find()
            if name is not None:
                yield ctypes.CDLL(name)
        except (ImportError, OSError):
            continue


def _of_hashlib() -> str | None:
    """Its extension module: what that is linked with is found through it."""
    import _hashlib  # noqa: PLC0415 - a Python may be built without OpenSSL

    return getattr(_hashlib, "__file__", None)


def proven(functions: Functions) -> bool:
    """Whether a message in two parts, the second from the state after the first, is what ``hashlib`` says, and the length is carried where it is looked for."""
    message = bytes(range(205))
    first, carrying = Sha256(functions=functions), Sha256(INITIAL, (5 << 29) - BLOCK_BYTES, functions=functions)
    first.update(message[:100])
    first.update(message[100:128])
    carrying.update(bytes(BLOCK_BYTES))
    try:
        second = Sha256(first.state, first.length, functions=functions)
    except ValueError:
        return False
    second.update(message[128:])
    return second.digest() == hashlib.sha256(message).digest() and second.length == len(message) and carrying.length == 5 << 29
