"""The catalog's file taken away or overwritten while it is open: that is noticed, said, and as much as can be is saved."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from catalog_world import SHARE, World, audit, entry

from replicad.catalog import Action, take_up
from replicad.errors import CatalogError

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


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
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
        await ann.author(SHARE, [entry("after")])
        await ann.copy_to(tmp_path / "copy")
        assert world.path("ann").exists() == (spoil in {replace, delete_log}), "an empty one in its place would be taken for the catalog"
    take_up(tmp_path / "copy", is_on_disk=lambda _content, _size: False, action=ACTION)
    async with world.open("ann", path=tmp_path / "copy") as again:
        await audit(again)
        assert [one.path for one in await again.entries(SHARE)] == ["after", "before"]


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
