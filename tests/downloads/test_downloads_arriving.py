"""Files served while they arrive: real catalogs, stores and fetch services, a real door, and a source that gives only what the test lets it give."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path

import pytest
from downloads_world import Client, World, listening, read_reply, request_of

from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.model.entries import Wanted
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.model.records import Body, Entry, Takedown, Tombstone
from replicad.protocol.fetch.config import FetchConfig
from replicad.protocol.fetch.events import Target
from replicad.server.downloads import application
from replicad.server.downloads.arriving import Arrivals, Waiting
from replicad.server.downloads.config import DownloadsConfig
from replicad.services.collect import Collect
from replicad.services.scrub import Scrub
from replicad.store.care import CollectConfig, ScrubConfig
from support.data_node import DataNetwork, DataNode, clock_ms, data_network
from support.storing import manifest_of, random_bytes
from support.waiting import until

pytestmark = pytest.mark.sockets

MIB = CHUNK_SIZE_MIN
SIZE = 8 * MIB + 5
BODY = random_bytes(SIZE)
ONE_AT_A_TIME = FetchConfig(contents_max=1, requests_per_peer=1)


class Gate:
    """What the source gives: ``given`` are the (start, stop) it was let give, at most ``allowed`` of them."""

    def __init__(self, source: DataNode) -> None:
        self.given: list[tuple[int, int]] = []
        self.allowed = 0
        self._open_chunks = source.fetch.provider.open_chunks
        source.fetch.provider.open_chunks = self._gated  # type: ignore[method-assign,assignment]

    async def _gated(self, asker: object, target: Target, *, start: int, stop: int) -> tuple[int, int]:
        await until(lambda: len(self.given) < self.allowed, what="leave to give", deadline_s=120)
        self.given.append((start, stop))
        return await self._open_chunks(asker, target, start=start, stop=stop)  # type: ignore[arg-type]


class Impatient:
    """A client that waits long for what will come, and not at all long for a byte that the test knows will not."""

    def __init__(self, waiting: Waiting, site: Site) -> None:
        self._waiting = waiting
        self._site = site
        self.descriptor = waiting.descriptor

    async def verified(self, offset: int, *, timeout_s: float) -> int:
        return await self._waiting.verified(offset, timeout_s=0.1 if self._site.hopeless(offset) else timeout_s)


class Site:
    """A source that has the file, a sink that has not, and the sink's door. ``hopeless`` says which bytes nobody will bring."""

    def __init__(self, network: DataNetwork, source: DataNode, sink: DataNode) -> None:
        self.network, self.source, self.sink = network, source, sink
        self.gate = Gate(source)
        self.arrivals = Arrivals(self._waiting, possible=lambda: sink.fetch.limiting.anybody() and not sink.store.places.faults())
        self.hopeless: Callable[[int], bool] = lambda _: False
        self.client: Client

    @contextmanager
    def _waiting(self, wanted: Wanted) -> Iterator[Waiting]:
        with self.sink.fetch.clients.waiting(wanted) as waiting:
            yield Impatient(waiting, self)

    async def link(self) -> None:
        await self.network.link(self.source, self.sink)

    async def publish(self, **contents: Manifest) -> None:
        await self.network.publish(self.source, "files", **contents)

    async def change(self, how: str) -> Manifest:
        """The name that the client asked for stands for something else (``replaced``) or nothing (``removed``) now, and the sink's fetching knows it: it wants the content returned, too."""
        other = await self.source.add(random_bytes(2 * MIB, seed=len(how)))
        before = tuple(await self.source.catalog.live_records("files", "file", "prod"))
        body: Body = Tombstone("file", "prod", supersedes=before)
        if how == "replaced":
            body = Entry("file", "prod", other.content, other.size, other.id, 1_700_000_000, supersedes=before)
        await self.network.author(self.source, "files", body, Entry("other", "prod", other.content, other.size, other.id, 1_700_000_000))
        assert manifest_of(BODY).content not in {one.content for one in await self.sink.catalog.wanted()}
        await until(lambda: self.fetches(other.content), what="the sink to know what it wants now")
        return other

    def fetches(self, content: Digest) -> bool:
        """Whether the sink looks for that content, or fetches it."""
        return self.sink.fetch._plan.job(content) is not None


@asynccontextmanager
async def site(root: Path, *, body: bytes = BODY, config: DownloadsConfig | None = None) -> AsyncIterator[Site]:
    async with data_network(root) as network:
        source, sink = await network.node("source"), await network.node("sink", config=ONE_AT_A_TIME)
        await network.share("files")
        found = Site(network, source, sink)
        server = application.make(
            sink.catalog,
            sink.store,
            view=application.View(sink.catalog.visible, World(root)),
            waiting_for=list,
            arrivals=found.arrivals,
            config=config,
        )
        async with listening(server, timeout_s=0.2) as port, Client(port, tls=False, server=server) as client:
            found.client = client
            await found.publish(file=await source.add(body))
            yield found


async def read_short(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(Content-Length, body) of an answer that ends too early."""
    async with asyncio.timeout(60):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 20"), head
        body = b""
        try:
            while piece := await reader.read(1 << 20):
                body += piece
        except ConnectionError:
            pass
    return int(head.partition("Content-Length: ")[2].partition("\r\n")[0]), body


async def test_a_file_is_served_while_it_arrives(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.link()
        content = manifest_of(BODY).content
        reader, writer = await here.client.connect()
        writer.write(request_of("/files/file", "Range: bytes=6291466-"))
        here.gate.allowed = 1
        async with asyncio.timeout(60):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first = await reader.readexactly(1000)
        start, stop = here.gate.given[0]
        assert start == 6 * MIB
        assert len(here.gate.given) == 1
        assert stop - start <= 2 * MIB, "the first byte is here after at most two chunks"
        assert head.startswith("HTTP/1.1 206 ")
        assert f"Content-Range: bytes 6291466-{SIZE - 1}/{SIZE}\r\n" in head
        assert not here.sink.holds(manifest_of(BODY))
        reply = await here.client.get("/files/file", method="HEAD")
        assert (reply.status, reply.fields["content-length"], reply.fields["etag"]) == (200, str(SIZE), f'"{content}"')
        assert reply.fields["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
        assert (await here.client.get("/files/file", "If-None-Match: *")).status == 304
        assert (await here.client.get("/files/file", f"Range: bytes={SIZE}-")).status == 416
        here.gate.allowed = 100
        async with asyncio.timeout(60):
            assert first + await reader.readexactly(SIZE - 6_291_466 - 1000) == BODY[6_291_466:]
        writer.write(request_of("/files/file"))
        whole = await read_reply(reader)
        assert (whole.status, whole.body) == (200, BODY)
        assert here.arrivals.count == 0


async def test_a_client_has_each_byte_as_soon_as_it_is_verified(tmp_path: Path) -> None:
    """While the source gives no more. So the answer ends with the fetch, not after it."""
    async with site(tmp_path) as here:
        await here.link()
        reader, writer = await here.client.connect()
        writer.write(request_of("/files/file"))
        body = b""
        while len(body) < SIZE:
            here.gate.allowed += 1
            await until(lambda: len(here.gate.given) == here.gate.allowed, what="the next request")
            start, stop = here.gate.given[-1]
            assert start == len(body)
            async with asyncio.timeout(60):
                if not body:
                    await reader.readuntil(b"\r\n\r\n")
                body += await reader.readexactly(stop - start)
        assert body == BODY
        assert here.gate.allowed > 2


async def start(here: Site) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A client that has the first part of the file, which is all there is."""
    await here.link()
    reader, writer = await here.client.connect()
    writer.write(request_of("/files/file"))
    here.gate.allowed = 1
    async with asyncio.timeout(60):
        await reader.readuntil(b"\r\n\r\n")
        first = await reader.readexactly(MIB)
    return reader, writer, first


@pytest.mark.parametrize("how", ["replaced", "removed"])
async def test_what_becomes_of_a_name_changes_nothing_for_answers_under_way(tmp_path: Path, how: str) -> None:
    """And what came for them alone is collected like anything else that no name stands for."""
    async with site(tmp_path) as here:
        reader, _, body = await start(here)
        await here.change(how)
        here.gate.allowed = 100
        async with asyncio.timeout(60):
            body += await reader.readexactly(SIZE - len(body))
        assert body == BODY
        sink, content = here.sink, manifest_of(BODY).content
        collect = Collect(sink.catalog, sink.store, config=CollectConfig(grace_s=0, versions=0), quiet=nullcontext, clock_ms=clock_ms)
        await collect.preview()
        assert [one.content for one in (await collect.collect()).due] == [content]
        assert not sink.store.has(content)
        reply = await here.client.get("/files/file")
        assert (reply.status, reply.fields.get("etag") == f'"{content}"') == (404 if how == "removed" else 200, False)


async def test_what_no_name_stands_for_is_given_up_when_its_last_client_leaves(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        _, writer, _ = await start(here)
        other = await here.change("replaced")
        content = manifest_of(BODY).content
        assert here.fetches(content)
        writer.transport.abort()
        here.hopeless = lambda _: True  # for a client whose end is not seen before it gets what comes next
        here.gate.allowed = 2
        await until(lambda: not here.fetches(content), what="the sink to give it up")
        here.gate.allowed = 100
        await until(lambda: here.sink.holds(other) and not here.sink.store.open_partials, what="everything else to be fetched")
        assert not await here.sink.catalog.partials()
        assert not here.sink.catalog.is_held(content)
        assert here.arrivals.count == 0


async def test_a_takedown_ends_answers_at_once(tmp_path: Path) -> None:
    """The one that has begun and the one that has not: with the deadlines as they are here, nobody would see their end."""
    async with site(tmp_path, config=DownloadsConfig(arrival_s=3600)) as here:
        reader, _, body = await start(here)
        content = manifest_of(BODY).content
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            later = group.create_task(here.client.get("/files/file", "Range: bytes=-1"))
            await until(lambda: here.arrivals.count == 2, what="both clients")
            await here.network.author(here.source, "", Takedown(content))
            with pytest.raises(asyncio.IncompleteReadError):
                await reader.readexactly(SIZE - len(body))
        assert later.result().status == 503
        await until(lambda: not here.fetches(content) and not here.sink.store.open_partials, what="the sink to give it up")
        assert here.arrivals.count == 0
        assert (await here.client.get("/files/file")).status == 404


async def test_many_clients_at_different_places_get_what_they_asked_for(tmp_path: Path) -> None:
    asked = {
        "whole": ((), 200, BODY),
        "resumed": (("Range: bytes=3000000-", f'If-Range: "{manifest_of(BODY).content}"'), 206, BODY[3_000_000:]),
        "resumed, changed": (("Range: bytes=3000000-", 'If-Range: "other"'), 200, BODY),
        "the last byte": (("Range: bytes=-1",), 206, BODY[-1:]),
        "the middle": (("Range: bytes=4194303-4194304",), 206, BODY[4_194_303:4_194_305]),
    }
    async with site(tmp_path) as here:
        await here.link()
        async with asyncio.TaskGroup() as group:
            asking = {name: group.create_task(here.client.get("/files/file", *fields)) for name, (fields, _, _) in asked.items()}
            several = group.create_task(here.client.get("/files/file", "Range: bytes=-2,0-1"))
            await until(lambda: here.arrivals.count == len(asked) + 1, what="all of them to wait")
            here.gate.allowed = 100
        for name, (_, status, body) in asked.items():
            reply = asking[name].result()
            assert (reply.status, reply.body == body) == (status, True), name
        assert several.result().parts() == [(f"bytes {SIZE - 2}-{SIZE - 1}/{SIZE}", BODY[-2:]), (f"bytes 0-1/{SIZE}", BODY[:2])]
        assert here.arrivals.count == 0


async def test_nobody_to_fetch_from(tmp_path: Path) -> None:
    """Told at once without links, after a while when those who are linked do not give it; then the proxy before it asks another node."""
    async with site(tmp_path) as here:
        here.hopeless = lambda _: True
        for linked in (False, True):
            if linked:
                await here.link()
            reply = await here.client.get("/files/file")
            assert (reply.status, reply.fields["retry-after"], reply.body) == (503, "5", b"503 Service Unavailable\n")
            assert "etag" not in reply.fields
        here.gate.allowed = 100
        here.hopeless = lambda _: False
        assert (await here.client.get("/files/file")).body == BODY


async def test_whoever_is_paused_is_nobody_to_fetch_from(tmp_path: Path) -> None:
    """Told at once: with the deadline as it is here, nobody would see it otherwise."""
    async with site(tmp_path, config=DownloadsConfig(arrival_s=3600)) as here:
        await here.link()
        here.gate.allowed = 100
        here.sink.paces.paused = frozenset({here.source.id})
        here.sink.fetch.limiting.changed()
        async with asyncio.timeout(60):
            assert (await here.client.get("/files/file")).status == 503
        here.sink.paces.paused = frozenset()
        here.sink.fetch.limiting.changed()
        assert (await here.client.get("/files/file")).body == BODY


async def test_a_fetch_that_stops_ends_the_answer_short(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.link()
        here.gate.allowed = 2
        here.hopeless = lambda offset: len(here.gate.given) == 2 and offset >= max(stop for _, stop in here.gate.given)
        reader, writer = await here.client.connect()
        writer.write(request_of("/files/file"))
        promised, body = await read_short(reader)
        assert promised == SIZE
        assert 0 < len(body) < SIZE
        assert body == BODY[: len(body)]
        here.gate.allowed = 100
        here.hopeless = lambda _: False
        assert (await here.client.get("/files/file", f"Range: bytes={len(body)}-")).body == BODY[len(body) :]


async def test_a_false_manifest_never_makes_a_complete_file(tmp_path: Path) -> None:
    """Every chunk is as its manifest says, the whole is not what the entry names."""
    lie = random_bytes(3 * MIB, seed=9)
    async with site(tmp_path, body=lie) as here:
        here.hopeless = lambda offset: offset == len(lie) - 1
        true = manifest_of(lie)
        other = Manifest(manifest_of(BODY).content, true.size, true.chunk_size, true.chunks)
        blob = here.source.store.path_of(other.content)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(lie)
        await here.source.catalog.hold([other])
        await here.network.author(here.source, "files", Entry("lie", "prod", other.content, other.size, other.id, 1_700_000_000))
        here.gate.allowed = 100
        await here.link()
        reader, writer = await here.client.connect()
        writer.write(request_of("/files/lie"))
        promised, body = await read_short(reader)
        assert promised == len(lie)
        assert len(body) < promised
        assert body == lie[: len(body)]
        assert not here.sink.holds(other)


async def test_waiting_clients_are_bounded_and_forgotten_when_they_leave(tmp_path: Path) -> None:
    async with site(tmp_path, config=DownloadsConfig(waiting_max=1)) as here:
        await here.link()
        _, writer = await here.client.connect()
        writer.write(request_of("/files/file"))
        await until(lambda: here.arrivals.count == 1, what="the first client")
        assert (await here.client.get("/files/file")).status == 503
        writer.transport.abort()
        here.gate.allowed = 100
        await until(lambda: here.arrivals.count == 0, what="its end")
        assert (await here.client.get("/files/file")).body == BODY


@pytest.mark.parametrize(
    ("method", "fields", "status"), [("GET", (), 200), ("GET", ("Range: bytes=-2",), 206), ("HEAD", (), 200)], ids=["GET", "Range", "HEAD"]
)
@pytest.mark.parametrize("damage", ["removed", "short", "moved away"])
async def test_what_went_from_the_disk_is_like_what_is_not_here_yet(tmp_path: Path, damage: str, method: str, fields: tuple[str, ...], status: int) -> None:
    """From the first request on: a 404 would say that the file does not exist. With the directory of all files away nothing can be fetched either."""
    async with site(tmp_path) as here, asyncio.TaskGroup() as group:
        content, store = manifest_of(BODY).content, here.sink.store
        running = group.create_task(Scrub(here.sink.catalog, store, hub=here.sink.hub, config=ScrubConfig(enabled=False), clock_ms=clock_ms).run())
        here.gate.allowed = 100
        await here.link()
        await here.sink.wait_for(manifest_of(BODY))
        if damage == "removed":
            store.path_of(content).unlink()
        elif damage == "short":
            os.truncate(store.path_of(content), SIZE - 1)
        else:
            store.blobs.rename(tmp_path / "elsewhere")
        if damage == "moved away" and method == "GET":
            status = 503
        reply = await here.client.get("/files/file", *fields, method=method)
        assert (reply.status, reply.fields.get("retry-after")) == (status, "5" if status == 503 else None)
        if status != 503:
            assert (reply.fields["etag"], reply.body) == (f'"{content}"', b"" if method == "HEAD" else BODY if status == 200 else BODY[-2:])
        await until(lambda: damage == "moved away" or here.sink.holds(manifest_of(BODY)), what="the file to be whole again")
        running.cancel()


@pytest.mark.parametrize("size", [0, SIZE - 1])
async def test_a_file_that_was_shortened_is_not_served_by_its_hash(tmp_path: Path, size: int) -> None:
    """What is not here as it should be is not here."""
    async with site(tmp_path) as here:
        here.gate.allowed = 100
        await here.link()
        await here.sink.wait_for(manifest_of(BODY))
        target = f"/-/blob/{manifest_of(BODY).content}"
        assert (await here.client.get(target)).body == BODY
        os.truncate(here.sink.store.path_of(manifest_of(BODY).content), size)
        assert (await here.client.get(target)).status == 404
