"""Sends the contents of files to the daemon, a few connections at once. Nothing here gives anything a name: as long as nothing is published, an upload has no effect that anybody sees.

A large file is one ``PUT /blobs`` of exact length, sent by sendfile; files of at most one chunk share ``POST /blobs`` requests. A file that changes while it is read is noticed before its
last block leaves: its identity (inode, size, times) is compared with what the scan saw, and the cut-off request leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence

from replicad.cli.client import Client, decode, path_of
from replicad.cli.scan import Source, identity, shown, unreadable
from replicad.errors import ReplicadError
from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.server.admin.bodies import BLOB_BATCH_ITEMS_MAX
from replicad.server.admin.nouns import Blob, Blobs

FRAME_HEAD = struct.Struct(">I")
CONNECTIONS_MAX = 3
"""While one batch waits for the disk, another is read and a third hashed. 2,000 files of 64 KiB published, medians of five: 1.07 s with four batches of 4 MiB at once, 0.98 s with three of 8 MiB; more connections gain nothing."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""What one batch may hold; as many as there are connections are in flight at once, in both processes."""
BATCH_ROOM_BYTES = BATCH_BYTES_MAX + BLOB_BATCH_ITEMS_MAX * FRAME_HEAD.size + 1
"""A whole batch with the heads of its frames is read to one place and sent from there."""
SLICE_BYTES = 32 * 1024 * 1024
"""Sent between two looks at the clock and at the other connections."""
LAST_BLOCK_BYTES = 64 * 1024
SEND_BUFFER_BYTES = 2 * 1024 * 1024
"""On its way to the daemon, if the system allows that (socket(7), wmem_max): with 208 KiB both sides wait for each other at every step, and publishing 256 MiB took 0.54 s instead of 0.46.
Not for batches: what is sent in small steps is still in the processor's cache when the daemon reads it (30 ms less for 2,000 files of 64 KiB)."""
UPLOAD_TIMEOUT_S = 600.0
"""Without any progress: the disk below the daemon may stall for long when it syncs."""

_OF_DISKS = frozenset({errno.EIO, errno.ESTALE})
"""What no connection says; the errors of TLS have classes and numbers of their own."""

Job = list[Source]


class FileChangedError(ReplicadError):
    """A file was written to while it was being published."""

    code = "file-changed"


class _StoppedError(Exception):
    """Another upload failed, or the person pressed Ctrl-C."""


class _Uploads:
    """One publication's uploads: jobs in order, taken by as many threads as there are connections."""

    def __init__(self, client: Client, jobs: Sequence[Job], share: str, on_bytes: Callable[[int], None]) -> None:
        self._client = client
        self._target = client.target(path_of("blobs"), {"share": share})
        self._jobs = iter(jobs)
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self.blobs: dict[str, Blob] = {}

    def run(self, connections: int) -> None:
        """Send everything; raises the first failure after every thread has ended. A second Ctrl-C does not wait for them."""
        threads = [threading.Thread(target=self._work, name=f"upload-{number}", daemon=True) for number in range(connections)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._stop.set()
            for thread in threads:
                thread.join()
            raise
        if self._failure is not None:
            raise self._failure

    def _next(self) -> Job | None:
        with self._lock:
            return None if self._stop.is_set() else next(self._jobs, None)

    def _work(self) -> None:
        try:
            room = bytearray(BATCH_ROOM_BYTES)
            with self._client.wrapped(), contextlib.closing(self._client.connect(UPLOAD_TIMEOUT_S)) as connection:
                while (job := self._next()) is not None:
                    if len(job) == 1 and job[0].size > CHUNK_SIZE_MIN:
                        self._send_large(connection, job[0])
                    else:
                        self._send_batch(connection, job, memoryview(room))
        except _StoppedError:
            return
        except BaseException as failure:  # noqa: BLE001 - carried to the caller's thread
            with self._lock:
                self._failure = self._failure or failure
            self._stop.set()

    def _send_large(self, connection: http.client.HTTPConnection, source: Source) -> None:
        with opened(source) as file:
            check_unchanged(source, file)
            connection.putrequest("PUT", self._target)
            for name, value in self._client.headers().items():
                connection.putheader(name, value)
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader("Content-Length", str(source.size))
            connection.endheaders()
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            with _early_answer(connection, source):
                self._send_content(connection, source, file)
            self.blobs[source.path] = decode(connection.getresponse(), Blob)

    def _send_content(self, connection: http.client.HTTPConnection, source: Source, file: io.FileIO) -> None:
        ahead = source.size - LAST_BLOCK_BYTES
        offset = 0
        while offset < ahead:
            if self._stop.is_set():
                raise _StoppedError
            if select.select([connection.sock], [], [], 0)[0]:
                raise BrokenPipeError
            count = min(SLICE_BYTES, ahead - offset)
            if connection.sock.sendfile(file, offset, count) != count:
                raise _changed(source)
            offset += count
            self._on_bytes(count)
        last = os.pread(file.fileno(), LAST_BLOCK_BYTES, ahead)
        check_unchanged(source, file)
        connection.sock.sendall(last)
        self._on_bytes(len(last))

    def _send_batch(self, connection: http.client.HTTPConnection, job: Job, room: memoryview) -> None:
        filled = 0
        for source in job:
            FRAME_HEAD.pack_into(room, filled, source.size)
            filled += FRAME_HEAD.size
            _read_small(source, room[filled : filled + source.size + 1])
            filled += source.size
        headers = {**self._client.headers(), "Content-Type": "application/octet-stream"}
        connection.request("POST", self._target, body=room[:filled], headers=headers)
        answer = decode(connection.getresponse(), Blobs)
        for source, blob in zip(job, answer.blobs, strict=True):
            self.blobs[source.path] = blob
            self._on_bytes(source.size)


def upload(client: Client, sources: Sequence[Source], share: str, on_bytes: Callable[[int], None]) -> dict[str, Blob]:
    """Upload every source, to be published in that share; answers by path. ``on_bytes`` is called from several threads with the bytes just sent. Raises FileChangedError, or whatever the daemon objects to."""
    jobs = list(batches(sources))
    work = _Uploads(client, jobs, share, on_bytes)
    work.run(min(CONNECTIONS_MAX, len(jobs)))
    return work.blobs


def batches(sources: Sequence[Source]) -> Iterator[Job]:
    """Large files one by one and first, so that the last connection does not end long after the others; small ones in batches."""
    large = sorted((source for source in sources if source.size > CHUNK_SIZE_MIN), key=lambda source: -source.size)
    yield from ([source] for source in large)
    job: Job = []
    total = 0
    for source in sources:
        if source.size > CHUNK_SIZE_MIN:
            continue
        if job and (total + source.size > BATCH_BYTES_MAX or len(job) == BLOB_BATCH_ITEMS_MAX):
            yield job
            job, total = [], 0
        job.append(source)
        total += source.size
    if job:
        yield job


def opened(source: Source) -> io.FileIO:
    """The file of a source, to be closed. FileChangedError if it went away since the scan."""
    with told_of(source):
        return open(source.file, "rb", buffering=0)  # noqa: PTH123 - the name may hold undecodable bytes


@contextlib.contextmanager
def told_of(source: Source) -> Iterator[None]:
    """What goes wrong with the file is told of the file; outside of this it would be taken for the daemon's silence."""
    try:
        yield
    except FileNotFoundError:
        raise _changed(source) from None
    except OSError as error:
        raise unreadable(source.file, error) from error


def _read_small(source: Source, room: memoryview) -> None:
    """The whole file into ``room``, which has one byte more to see whether the file has."""
    with opened(source) as file, told_of(source):
        count = file.readinto(room)
        while count < source.size and (more := file.readinto(room[count:])):
            count += more
        check_unchanged(source, file)
    if count != source.size:
        raise _changed(source)


def check_unchanged(source: Source, file: io.FileIO) -> None:
    """FileChangedError if it was written to since the scan."""
    with told_of(source):
        found = identity(os.fstat(file.fileno()))
    if found != source.identity:
        raise _changed(source)


def _changed(source: Source) -> FileChangedError:
    return FileChangedError(
        f"{shown(source.file)} changed while it was being published; nothing was published", hint="publish it again when whatever writes it has finished"
    )


@contextlib.contextmanager
def _early_answer(connection: http.client.HTTPConnection, source: Source) -> Iterator[None]:
    """The daemon may refuse an upload before it has all of it: then its answer tells why, and the broken pipe is only the consequence. What a disk says comes from the file."""
    try:
        yield
    except (BrokenPipeError, ConnectionResetError):
        with contextlib.suppress(OSError, http.client.HTTPException):
            decode(connection.getresponse(), Blob)
        raise
    except OSError as error:
        if type(error) is OSError and error.errno in _OF_DISKS:
            raise unreadable(source.file, error) from error
        raise
