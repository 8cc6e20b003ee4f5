"""A client of a Munki repository never reads an index that names what this node does not have, in whatever order things arrive and whenever the node was killed."""

from __future__ import annotations

import plistlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from munki_world import CATALOG, MANIFEST, Client, catalog, manifest, package

from replicad.crypto.hashing import sha256
from replicad.errors import InputError
from replicad.integrations import munki
from replicad.integrations.repositories import Repositories
from replicad.model.paths import key
from support.admin_door import Door, opened

ROOT = "Client/R\u00e9po/"


@pytest.fixture(params=["", ROOT], ids=["whole share", "directory"])
def root(request: pytest.FixtureRequest) -> str:
    """Where in its share the repository is."""
    return str(request.param)


@pytest.fixture
async def door(tmp_path: Path, root: str) -> AsyncIterator[Door]:
    """munki is a Munki repository, or has one in a directory; jamf is and has not."""
    async with opened(tmp_path / "data") as found:
        assert (await found.ask("PATCH", "/shares/munki", {"layout": "munki", "root": root})).status == 200
        yield found


@pytest.fixture
def client(door: Door, root: str) -> Client:
    """Of the node that goes on living."""
    return Client(door.services.repositories, door.services.store, root=root)


def release(version: int, count: int) -> list[tuple[str, bytes]]:
    """So many packages, and the catalog that names them."""
    packages = [package(number, version) for number in range(count)]
    return [*packages, catalog(version, packages)]


def fresh(door: Door, root: str) -> Client:
    """As after a kill: nothing in memory."""
    return Client(Repositories(door.services.catalog, door.services.store.open_blob, now_ms=lambda: 0), door.services.store, root=root)


async def publish(door: Door, path: str, content: bytes) -> None:
    assert (await door.publish("munki", path, content)).status == 200


async def lose(door: Door, content: bytes) -> None:
    await door.services.store.remove(sha256(content))
    await door.services.catalog.lose(sha256(content))


async def take(door: Door, root: str, dice: random.Random, files: list[tuple[str, bytes]]) -> AsyncIterator[str]:
    """Names and contents of these files arrive in random order; the last name is the manifest's, which its author signed after the others."""
    names = [*dice.sample(files[:-1], len(files) - 1), files[-1]]
    times = sorted(dice.random() for _ in names)
    events = [(time, False, file) for time, file in zip(times, names, strict=True)] + [(dice.random(), True, file) for file in files]
    here: set[str] = set()
    for _, is_content, (path, content) in sorted(events):
        if is_content:
            here.add(path)
            await door.upload(content)
        else:
            await publish(door, root + path, content)
            if path not in here:
                await lose(door, content)
        yield path


async def test_a_catalog_comes_after_all_that_it_names_at_any_point_and_after_any_kill(door: Door, root: str, client: Client, dice: random.Random) -> None:
    assert await client.version() == 0
    newest = 0
    for version, count in ((1, 3), (2, 20), (3, 2)):
        files = [*release(version, count), manifest(version)]
        async for path in take(door, root, dice, files):
            seen, after_kill = await client.version(), await fresh(door, root).version()
            assert newest <= seen == after_kill <= version, path
            newest = seen
        assert newest == version, "all is here"
        assert await client.read(MANIFEST) == files[-1][1]
    assert await door.services.repositories.waiting("munki") == (2, [])


async def test_a_package_that_was_removed_stays_as_long_as_a_catalog_that_is_shown_names_it(door: Door, root: str, client: Client) -> None:
    [(old, content), first], [(new, newer), second] = release(1, 1), release(2, 1)
    await publish(door, root + old, content)
    await publish(door, root + CATALOG, first[1])
    assert await client.version() == 1
    await publish(door, root + CATALOG, second[1])
    assert (await door.ask("POST", "/shares/munki/remove", {"paths": [root + old]})).status == 200
    assert await client.version() == await fresh(door, root).version() == 1
    await door.ask("PUT", f"/takedowns/{sha256(content)}", {})
    assert await client.read(old) is None, "a takedown stands above all"
    await door.ask("DELETE", f"/takedowns/{sha256(content)}")
    await publish(door, root + new, newer)
    assert await client.version() == 2
    assert await client.read(old) is None


async def test_what_an_index_waits_for_is_told(door: Door, root: str, client: Client) -> None:
    testing = plistlib.dumps([{"name": "Big", "installer_item_location": "apps/Big 1.dmg", "icon_name": "Big", "icon_hash": "x"}])
    await publish(door, f"{root}catalogs/testing", testing)
    await publish(door, f"{root}catalogs/broken", b"<plist>")
    await publish(door, f"{root}manifests/mac1", plistlib.dumps({"catalogs": ["testing", "absent"]}))
    await publish(door, f"{root}manifests/.DS_Store", b"not for Munki")
    await door.publish("jamf", f"{root}catalogs/all", b"not Munki's")
    living = door.services.repositories
    count, waiting = await living.waiting("munki")
    assert count == 3
    assert {held.newest.path: [reference.path for reference in held.missing] for held in waiting} == {
        f"{root}catalogs/broken": [f"{root}catalogs/broken: not a property list (no element found: line 1, column 7)"],
        f"{root}catalogs/testing": [f"{root}pkgs/apps/Big 1.dmg", f"{root}icons/Big.png"],
        f"{root}manifests/mac1": [f"{root}catalogs/testing"],
    }
    (told,) = (await door.ask("GET", "/munki")).json["repositories"]
    assert (told["share"], told["root"], told["indexes"], len(told["waiting"])) == ("munki", root.rstrip("/"), 3, 3)
    assert await client.read("manifests/.DS_Store") == b"not for Munki"
    assert (await living.visible("jamf", key(f"{root}catalogs/all"))) is not None
    await publish(door, f"{root}icons/Big.png", b"icon")
    await publish(door, f"{root}pkgs/Apps/Big 1.dmg", b"big")
    assert [held.newest.path for held in (await living.waiting("munki"))[1]] == [f"{root}catalogs/broken"]
    assert await client.read("manifests/mac1") is not None


async def test_a_package_of_another_hash_does_not_do(door: Door, root: str, client: Client) -> None:
    (path, content), index = release(1, 1)
    await publish(door, root + CATALOG, index[1])
    await publish(door, root + path, b"something else")
    assert await client.version() == 0
    await publish(door, root + path, content)
    assert await client.version() == 1


async def test_what_was_shown_stays_and_what_is_removed_is_gone(door: Door, root: str, client: Client) -> None:
    (path, content), index = release(1, 1)
    await publish(door, root + path, content)
    await publish(door, root + CATALOG, index[1])
    assert await client.version() == 1
    await lose(door, content)
    assert await client.read(CATALOG) == index[1], "a damaged package is healed; the catalog does not come and go"
    await door.ask("POST", "/shares/munki/remove", {"paths": [root + CATALOG]})
    assert await client.read(CATALOG) is None


@pytest.mark.parametrize("root", [ROOT], ids=["directory"])
async def test_what_is_outside_of_the_directory_is_not_the_repository(door: Door, root: str) -> None:
    """The same names elsewhere in the share are files like any others; with another directory they are the repository, and what was one is files."""
    (path, content), (_, index) = release(1, 1)
    everywhere = ["", root, f"{root.rstrip('/')}2/"]
    for directory in everywhere:
        await publish(door, directory + CATALOG, index)
    await publish(door, path, content)

    async def hidden() -> list[str]:
        return [directory for directory in everywhere if await door.services.repositories.visible("munki", key(directory + CATALOG)) is None]

    assert await hidden() == [root]
    assert (await door.ask("PATCH", "/shares/munki", {"root": everywhere[2]})).status == 200
    assert await hidden() == [everywhere[2]]
    assert (await door.ask("PATCH", "/shares/munki", {"root": ""})).status == 200
    assert await hidden() == []


def items() -> Iterator[tuple[dict[str, Any], list[str]]]:
    yield {"installer_item_location": "a.pkg"}, ["pkgs/a.pkg"]
    yield {"installer_item_location": "a.pkg", "uninstaller_item_location": "u.pkg"}, ["pkgs/a.pkg", "pkgs/u.pkg"]
    yield {"installer_item_location": "a.pkg", "PackageCompleteURL": "https://elsewhere/a.pkg"}, []
    yield {"installer_item_location": "a.pkg", "PackageURL": "https://elsewhere"}, []
    yield {"installer_type": "nopkg", "name": "script"}, []
    yield {"name": "App"}, []
    yield {"name": "App", "icon_hash": "0" * 64}, ["icons/App.png"]
    yield {"name": "App", "icon_name": "Other.icns"}, ["icons/Other.icns"]
    yield {"name": "App", "icon_name": "v1.2/Other"}, ["icons/v1.2/Other.png"]
    yield {"installer_item_location": "/lead/a.pkg"}, ["pkgs/lead/a.pkg"]
    yield {"installer_item_location": "../../etc/passwd"}, ["pkgs/../../etc/passwd"]
    yield {"installer_item_location": 7}, ["pkgs/7"]


@pytest.mark.parametrize(("item", "named"), list(items()))
def test_what_a_catalog_names(item: dict[str, Any], named: list[str]) -> None:
    found = munki.references(CATALOG, plistlib.dumps([item]))
    assert [reference.path for reference in found] == named
    assert [reference.path for reference in found if reference.key is None] == [path for path in named if ".." in path]


BOMB = b'<?xml version="1.0"?><!DOCTYPE plist [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><plist><array><string>&b;</string></array></plist>'


@given(
    st.binary(max_size=200) | st.sampled_from([BOMB, b"<plist><dict><key>a</key></dict></plist>", b"bplist00" + bytes(40), b"<plist>" + b"<array>" * 5000]),
    st.sampled_from([CATALOG, MANIFEST]),
)
def test_garbage_is_refused_and_nothing_else_happens(encoded: bytes, key: str) -> None:
    try:
        munki.references(key, encoded)
    except InputError:
        return
    assert plistlib.loads(encoded) is not None
