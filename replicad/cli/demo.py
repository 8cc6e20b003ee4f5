"""demo: a network on this machine, a file that spreads through it, and a download from its far end."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import signal
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Any

import click
from msgspec import Struct

from replicad.cli import output
from replicad.cli.client import path_of
from replicad.cli.demo_nodes import LOOK_S, SHARE, DemoNode, running
from replicad.cli.invocation import Invocation, Verb, pass_invocation
from replicad.cli.output import Output, clean, duration, size
from replicad.cli.publish import publish_sources
from replicad.cli.scan import scan
from replicad.errors import IntegrityError, ReplicadError
from replicad.model.chunks import chunk_size_for
from replicad.model.words import plural
from replicad.server.admin import nouns

FILE_BYTES = 64 * 1024 * 1024
PIECE_BYTES = 1 << 20
SPREAD_S_MAX = 600.0
RANGE_BYTES = 4096
LINE_EVERY_S = 1.0


class Address(Struct, frozen=True):
    """Where one node of the demo is."""

    name: str
    file: str
    page: str


class Demonstrated(Struct, frozen=True):
    """What ``demo --json`` prints once everything is verified."""

    nodes: list[Address]
    sha256: str
    size: int
    spread_s: float
    range: str
    verified: bool


@click.command(cls=Verb, prints=Demonstrated)
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--nodes", "count", type=click.IntRange(2, 16), default=3, show_default=True, help="How many nodes.")
@click.option("--once", is_flag=True, help="End after the verification instead of waiting for Ctrl-C.")
@pass_invocation
def demo(invocation: Invocation, *, file: Path | None, count: int, once: bool) -> None:
    """Start a network on this machine, publish FILE (64 MiB of random bytes, unless given) and watch it spread. Nothing stays behind."""
    out = invocation.out
    with _ended_by_signals():
        out.talk(f"starting {plural(count, 'node')} ...")
        with running(count) as nodes:
            answer = _demonstrate(nodes, out, file or _generated(nodes[0].home))
            out.data(answer, _render(answer))
            if not once:
                out.talk("\nThe network runs until you press Ctrl-C.")
                with contextlib.suppress(KeyboardInterrupt):
                    _stay(nodes)
            out.talk("ending the nodes and removing their files ...")


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A polite kill ends the demo like Ctrl-C: everything is cleaned up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _generated(home: Path) -> Path:
    """A file of bytes that nobody else has."""
    path = home / "demo.bin"
    with path.open("wb") as file:
        for _ in range(FILE_BYTES // PIECE_BYTES):
            file.write(os.urandom(PIECE_BYTES))
    return path


def _demonstrate(nodes: list[DemoNode], out: Output, file: Path) -> Demonstrated:
    [source] = scan([file], file.name)
    published = publish_sources(nodes[0].client, out, [source], share=SHARE, stage=None, urgent=False, dry_run=False).published[0]
    out.talk(f"published  {SHARE}/{clean(published.path)}  {size(published.size)}  sha256 {published.sha256} at {nodes[0].name}")
    started = time.monotonic()
    _watch(nodes, out, published)
    spread_s = time.monotonic() - started
    out.talk(f"every node holds it, verified, after {duration(spread_s)}")
    asked = _verify_range(nodes[-1], file, published)
    out.talk(f"bytes {asked} (across a chunk border where there is one) downloaded from {nodes[-1].name} by HTTP Range are those of the source")
    addresses = [Address(node.name, _file_url(node, published), node.page) for node in nodes]
    return Demonstrated(addresses, published.sha256, published.size, round(spread_s, 3), asked, verified=True)


def _file_url(node: DemoNode, published: nouns.Published) -> str:
    return f"http://{node.downloads}{_target(published)}"


def _target(published: nouns.Published) -> str:
    return path_of(SHARE, file=published.path).removeprefix(path_of())


def _percents(nodes: list[DemoNode]) -> list[int]:
    """How much of the only file each node holds, as it says itself."""
    found = []
    for node in nodes:
        node.check_alive()
        rows = node.client.ask("GET", path_of("matrix"), answer=nouns.Matrix).rows
        found.append(rows[0].percent[0] or 0 if rows else 0)
    return found


def _watch(nodes: list[DemoNode], out: Output, published: nouns.Published) -> None:
    """The matrix filling up, until everybody has everything."""
    deadline_s = time.monotonic() + SPREAD_S_MAX
    with _display(nodes, out, published) as show:
        while True:
            percents = _percents(nodes)
            show(percents)
            if all(percent == 100 for percent in percents):
                return
            if time.monotonic() > deadline_s:
                raise ReplicadError(f"the file did not reach every node in {duration(SPREAD_S_MAX)}")
            time.sleep(LOOK_S)


@contextlib.contextmanager
def _display(nodes: list[DemoNode], out: Output, published: nouns.Published) -> Iterator[Any]:
    """A bar and the matrix on a terminal; otherwise a line a second."""
    if out.live:
        from rich.console import Console, Group  # noqa: PLC0415 - rich is imported on a terminal only
        from rich.live import Live  # noqa: PLC0415
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        bar = Progress(TextColumn("replicating"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
        task = bar.add_task("", total=100 * len(nodes))
        with Live(console=Console(stderr=True, no_color=not out.color), refresh_per_second=20) as live:

            def draw(percents: list[int]) -> None:
                bar.update(task, completed=sum(percents))
                live.update(Group(bar, Text(_matrix(nodes, published, percents))), refresh=True)

            yield draw
        return
    due_s = 0.0

    def say(percents: list[int]) -> None:
        nonlocal due_s
        if time.monotonic() >= due_s or min(percents) == 100:
            due_s = time.monotonic() + LINE_EVERY_S
            out.talk("   ".join(f"{node.name} {percent} %" for node, percent in zip(nodes, percents, strict=True)))

    yield say


def _matrix(nodes: list[DemoNode], published: nouns.Published, percents: list[int]) -> str:
    heads = ["FILE", "STAGE", *(f"{output.RIGHT}{node.name}" for node in nodes), ">COPIES"]
    cells = ["ok" if percent == 100 else f"{percent} %" for percent in percents]
    return output.table(heads, [[f"{SHARE}/{published.path}", published.stage, *cells, f"{percents.count(100)}/{len(nodes)}"]])


def _verify_range(node: DemoNode, file: Path, published: nouns.Published) -> str:
    """Ask for bytes on both sides of a chunk border (of the middle, if the file is one chunk) and compare them with the source."""
    border = chunk_size_for(published.size)
    middle = border if border < published.size else published.size // 2
    first, last = max(0, middle - RANGE_BYTES), max(0, min(published.size, middle + RANGE_BYTES) - 1)
    asked = f"{first}-{last}"
    with contextlib.closing(http.client.HTTPConnection(node.downloads, timeout=60)) as connection:
        connection.request("GET", _target(published), headers={"Range": f"bytes={asked}"} if published.size else {})
        response = connection.getresponse()
        received = response.read()
    with file.open("rb") as source:
        source.seek(first)
        expected = source.read(last - first + 1)
    status = HTTPStatus.PARTIAL_CONTENT if published.size else HTTPStatus.OK
    if response.status != status or received != expected or response.headers["ETag"] != f'"{published.sha256}"':
        raise IntegrityError(f"{node.name} answered {response.status} with {hashlib.sha256(received).hexdigest()}: not bytes {asked} of the source")
    return asked


def _render(answer: Demonstrated) -> str:
    lines = [f"{clean(node.name)}  {clean(node.file)}\n       page: {node.page}" for node in answer.nodes]
    return "\n".join(lines)


def _stay(nodes: list[DemoNode]) -> None:
    """Until Ctrl-C, or until a node ends."""
    while True:
        for node in nodes:
            node.check_alive()
        time.sleep(1.0)
