"""ls, show, get: what the shares hold."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import IO

import click
from msgspec import Struct

from replicad.cli import output, values
from replicad.cli.client import ANSWER_BYTES_MAX, Client, error_of, path_of, problem_of
from replicad.cli.invocation import Invocation, Verb, pass_invocation
from replicad.cli.output import clean, moment, size
from replicad.cli.progress import Progress
from replicad.errors import ConflictError, IntegrityError, NotAllowedError, NotFoundError, ReplicadError, UnreachableError
from replicad.model.words import plural
from replicad.server.admin import nouns

PIECE_BYTES = 1 << 20
DOWNLOAD_TIMEOUT_S = 120.0
STANDARD_OUTPUT = Path("-")


class Got(Struct, frozen=True):
    """What ``get --json`` prints. ``file`` is where it was written."""

    file: str
    size: int
    sha256: str


@click.command(cls=Verb, prints=nouns.Entries)
@click.argument("place", metavar=values.PLACE_METAVAR, required=False, callback=values.place)
@pass_invocation
def ls(invocation: Invocation, *, place: tuple[str | None, str]) -> None:
    """List what this node shows of all shares, of one, or below a prefix."""
    share, prefix = place
    answer = invocation.client().whole(path_of("entries"), answer=nouns.Entries, items="entries", query={"share": share, "prefix": prefix})
    if prefix and not answer.entries:
        raise NotFoundError(f"this node shows nothing at {share}/{prefix}", hint=f"replicad ls {share}", code="no-such-file")
    rows = (
        [
            f"{one.share}/{one.path}",
            one.stage,
            size(one.size),
            moment(one.published),
            one.publisher,
            ("" if one.available else "taken down" if one.taken_down else "not here yet") + (" conflict" if one.siblings else ""),
        ]
        for one in answer.entries
    )
    invocation.out.data(answer, output.table(["FILE", "STAGE", ">SIZE", "PUBLISHED", "BY", ""], rows))


def _cell(copy: nouns.Copy) -> str:
    state = "not known" if copy.percent is None else "ok" if copy.percent == 100 else f"{copy.percent} %"
    return state if copy.linked else f"{state} (offline)"


def render_entry(answer: nouns.EntryAnswer) -> str:
    """The picture of ``replicad show``."""
    one = answer.entry
    facts = [
        ("file", f"{one.share}/{one.path}"),
        ("stage", one.stage),
        ("size", f"{size(one.size)} ({plural(one.size, 'byte')})"),
        ("sha256", one.sha256),
        *one.checksums.items(),
        ("published", f"{moment(one.published)} by {one.publisher or 'somebody'} at {one.origin}"),
        ("here", "held and verified" if one.available else "taken down: no node serves it" if one.taken_down else "not yet"),
        ("record", one.record),
    ]
    lines = [f"{name:<10} {clean(value)}" for name, value in facts]
    winners = {one.stage: one.record} | {other.stage: other.record for other in reversed(answer.others) if other.stage != one.stage}
    lines += [
        f"{'also' if winners[other.stage] == other.record else 'sibling':<10} "
        + clean(f"stage {other.stage}, sha256 {other.sha256}, {moment(other.published)} by {other.publisher} at {other.origin}, record {other.record[:12]}")
        for other in answer.others
    ]
    if any(winners[other.stage] != other.record for other in answer.others):
        name = clean(f"{one.share}/{one.path}")
        lines.append(
            f"conflict   nodes published at the same time; to settle it: replicad rollback {name} --to RECORD (of what shall stand), or publish another content"
        )
    if answer.collides is not None:
        lines.append(f"conflict   {clean(f'{one.share}/{answer.collides}')} is a file, too: remove one of them")
    lines += [f"copy       {clean(copy.name)}: {_cell(copy)}" for copy in answer.copies]
    return "\n".join(lines)


@click.command(cls=Verb, prints=nouns.EntryAnswer)
@click.argument("name", metavar=values.IN_SHARE_METAVAR, callback=values.in_share)
@pass_invocation
def show(invocation: Invocation, *, name: tuple[str, str]) -> None:
    """Show what one name stands for, and who holds it."""
    share, path = name
    answer = invocation.client().ask("GET", path_of("shares", share, "entries", file=path), answer=nouns.EntryAnswer)
    invocation.out.data(answer, render_entry(answer))


@contextlib.contextmanager
def opened(client: Client, share: str, path: str, record: str | None) -> Iterator[tuple[http.client.HTTPResponse, str]]:
    """The content's response and the SHA-256 that the signed entry promises."""
    with client.wrapped(), contextlib.closing(client.connect(DOWNLOAD_TIMEOUT_S)) as connection:
        connection.request("GET", client.target(path_of("shares", share, "files", file=path), {"record": record}), headers=client.headers())
        response = connection.getresponse()
        if response.status != HTTPStatus.OK:
            raise error_of(problem_of(response, response.read(ANSWER_BYTES_MAX)))
        yield response, (response.headers["ETag"] or "").strip('"')


def copy_body(response: http.client.HTTPResponse, file: IO[bytes], target: Path, on_bytes: Callable[[int], None]) -> tuple[int, str]:
    """Copy the whole body to the unbuffered file; its size and SHA-256. UnreachableError if it ends early, ReplicadError("unwritable") if it cannot be written."""
    whole = hashlib.sha256()
    count = 0
    while piece := response.read(PIECE_BYTES):
        whole.update(piece)
        with told_of(target):
            left = memoryview(piece)
            while left:
                left = left[file.write(left) :]
        on_bytes(len(piece))
        count += len(piece)
    promised = int(response.headers["Content-Length"] or 0)
    if count != promised:
        raise UnreachableError(f"the daemon ended the download after {count} of {promised} bytes; its log says why")
    return count, whole.hexdigest()


def _check(found: str, promised: str, name: str) -> None:
    if found != promised:
        raise IntegrityError(f"{name}: the bytes received have SHA-256 {found}, the entry says {promised}", hint="replicad doctor")


@contextlib.contextmanager
def _unbuffered(target: Path) -> Iterator[IO[bytes]]:
    """Where to write: standard output, a device or pipe itself, or a temporary file beside the target that takes its place at the end, or goes away."""
    if target == STANDARD_OUTPUT or (target.exists() and not target.is_file()):
        with told_of(target):
            file = open(sys.stdout.fileno() if target == STANDARD_OUTPUT else target, "wb", buffering=0, closefd=target != STANDARD_OUTPUT)  # noqa: SIM115 - closed below
        with file:
            yield file
        return
    with told_of(target):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:200]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            yield file
        with told_of(target):
            mask = os.umask(0)
            os.umask(mask)
            Path(name).chmod(0o666 & ~mask)
            Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def new_private(target: Path) -> Iterator[IO[bytes]]:
    """A file, to be written and read, that nobody else may read and that appears when it is complete and on the disk. ConflictError("exists") if there is one."""
    if target.exists():
        raise ConflictError(f"{target} exists already and is not overwritten", code="exists")
    with told_of(target):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:200]}.", suffix=".part")
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            with told_of(target):
                file.flush()
                os.fsync(file.fileno())
        with told_of(target):
            Path(name).rename(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def told_of(target: Path) -> Iterator[None]:
    """What goes wrong with the target is told of the target; outside of this it would be taken for the daemon's silence."""
    try:
        yield
    except OSError as error:
        kind = NotAllowedError if isinstance(error, PermissionError) else ReplicadError
        shown = "to standard output" if target == STANDARD_OUTPUT else target
        raise kind(f"cannot write {shown}: {(error.strerror or str(error)).lower()}", code="unwritable") from error


@click.command(cls=Verb, prints=Got)
@click.argument("name", metavar=values.IN_SHARE_METAVAR, callback=values.in_share)
@click.option("-o", "--output", "output_file", metavar="FILE", help="Where to write it ('-': standard output) [the file's own name, here].")
@click.option("--record", metavar="ID", help="A sibling or an older version, as `replicad show` and `replicad history` name it; 8 digits will do.")
@pass_invocation
def get(invocation: Invocation, *, name: tuple[str, str], output_file: str | None, record: str | None) -> None:
    """Fetch a file from this node and verify it. A wrong byte ends with exit 7 and leaves no file."""
    share, path = name
    shown = f"{share}/{path}"
    with opened(invocation.client(), share, path, record) as (response, promised):
        target = Path(output_file or Path(path).name)
        if target.is_dir():
            target /= Path(path).name
        bar = (
            contextlib.nullcontext()
            if target == STANDARD_OUTPUT
            else Progress(invocation.out, clean(shown), total_bytes=int(response.headers["Content-Length"] or 0))
        )
        with bar as progress, _unbuffered(target) as file:
            count, found = copy_body(response, file, target, progress.advance if progress else lambda _count: None)
            _check(found, promised, shown)
    if target != STANDARD_OUTPUT:
        invocation.out.data(Got(str(target), count, found), f"{clean(str(target))}  {size(count)}  sha256 {found}")
