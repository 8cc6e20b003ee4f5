"""The catalog's file taken away or overwritten while it is open: that is noticed and said, nothing is promised any more, and as much as can be is saved."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from catalog_world import SHARE, World, audit, content_of, entry

from replicad.catalog import Action, Catalog, take_up
from replicad.catalog.health import FULL_S, Health
from replicad.errors import CatalogError, NoSpaceError

ACTION = Action(0, 5, "root", "restore", "", "POST", "/backup", "", 200, "")


def delete(catalog: Path) -> None:
    catalog.unlink()


def delete_with_log(catalog: Path) -> None:
    for file in catalog.parent.glob(f"{catalog.name}*"):
        file.unlink()


def delete_log(catalog: Path) -> None:
    catalog.with_name(f"{catalog.name}-wal").unlink()


def replace(catalog: Path) -> None:
    shutil.copy(catalog, catalog.with_name("other"))
    catalog.with_name("other").rename(catalog)


def replace_log(catalog: Path) -> None:
    replace(catalog.with_name(f"{catalog.name}-wal"))


SPOILS = (delete, delete_with_log, delete_log, replace, replace_log)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (replace_log, "ann.sqlite-wal is another file than the daemon has open"),
        (delete, "ann.sqlite is not there any more"),
        (delete_with_log, "ann.sqlite is not there any more"),
        (delete_log, "ann.sqlite-wal is not there any more"),
        (replace, "ann.sqlite is another file than the daemon has open"),
    ],
)
async def test_what_is_open_is_told_from_what_lies_there_and_copied_whole(world: World, tmp_path: Path, spoil: Callable[[Path], None], words: str) -> None:
    async with world.founded() as ann:
        await ann.author(SHARE, [entry("before")])
        assert ann.fault is None
        spoil(world.path("ann"))
        assert ann.fault is not None
        assert (words in ann.fault.message, ann.fault.hint.startswith("replicad backup create FILE now")) == (True, True)
        await ann.hold([content_of("fetched")])
        await ann.copy_to(tmp_path / "copy")
        assert world.path("ann").exists() == (spoil not in {delete, delete_with_log}), "an empty one in its place would be taken for the catalog"
    take_up(tmp_path / "copy", is_on_disk=lambda _content, _size: False, action=ACTION)
    async with world.open("ann", path=tmp_path / "copy") as again:
        await audit(again)
        assert [one.path for one in await again.entries(SHARE)] == ["before"]


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("reopened", [False, True])
async def test_nothing_is_promised_that_would_go_with_the_file(world: World, spoil: Callable[[Path], None], *, reopened: bool) -> None:
    async with world.founded() as ann:
        await ann.author(SHARE, [entry("before")])
        if not reopened:
            await _refuses(ann, spoil, world.path("ann"))
    if reopened:
        async with world.open("ann") as ann:
            await _refuses(ann, spoil, world.path("ann"))


async def _refuses(ann: Catalog, spoil: Callable[[Path], None], path: Path) -> None:
    last = ann.replica.clock.last
    spoil(path)
    for promise in (
        ann.author(SHARE, [entry("after")]),
        ann.hold([content_of("uploaded")], durable=True),
        ann.set_meta("limits", "none", durable=True),
    ):
        with pytest.raises(CatalogError, match="takes no changes until then") as met:
            await promise
        assert met.value.hint.startswith("replicad backup create FILE now")
    assert [one.path for one in await ann.entries(SHARE)] == ["before"]
    assert (ann.replica.clock.last, ann.is_held(content_of("uploaded").content)) == (last, False)


async def _refused(ann: Catalog) -> Exception | None:
    try:
        await ann.author(SHARE, [entry("after")])
    except CatalogError as error:
        return error
    return None


async def test_a_file_that_is_put_back_is_the_catalog_again(world: World) -> None:
    async with world.founded() as ann:
        path = world.path("ann")
        path.rename(path.with_name("elsewhere"))
        assert await _refused(ann) is not None
        path.with_name("elsewhere").rename(path)
        assert (ann.fault, await _refused(ann)) == (None, None)
    async with world.open("ann") as ann:
        assert [one.path for one in await ann.entries(SHARE)] == ["after"]


async def test_damage_that_one_query_met_is_remembered(world: World) -> None:
    async with world.founded() as ann:
        await ann.author(SHARE, [entry(f"{number}") for number in range(300)])
    path = world.path("ann")
    async with world.open("ann") as ann:
        with path.open("r+b") as file:
            file.seek(2 * 4096)
            file.write(b"\xa5" * (path.stat().st_size - 2 * 4096))
        assert ann.fault is None
        with pytest.raises(CatalogError, match=r"ann\.sqlite: the catalog is damaged: database disk image is malformed") as met:
            await ann.entries(SHARE)
        assert ann.fault is met.value
        assert met.value.hint.startswith("replicad backup restore FILE --force")
        with pytest.raises(CatalogError, match="is damaged"):
            await ann.author(SHARE, [entry("more")])


def test_that_there_was_no_room_is_told_for_a_while(tmp_path: Path) -> None:
    now_s = 1000.0
    health = Health(tmp_path / "catalog", tmp_path / "log", monotonic=lambda: now_s)
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert not health.full
    assert isinstance(health.wrapped(error), NoSpaceError)
    assert health.full
    now_s += FULL_S
    assert not health.full
