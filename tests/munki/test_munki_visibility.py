"""A client of a Munki repository never reads an index that names what this node does not have, in whatever order things arrive and whenever the node was killed."""

from __future__ import annotations

import os
import plistlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.crypto.hashing import sha256
from replicad.errors import InputError
from replicad.integrations import munki
from replicad.integrations.repositories import Repositories
from replicad.model import paths
from support.admin_door import Door, opened

CATALOG, MANIFEST = "catalogs/all", "manifests/site_default"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """munki is a Munki repository, jamf is not."""
    async with opened(tmp_path / "data") as found:
        assert (await found.ask("PATCH", "/shares/munki", {"layout": "munki"})).status == 200
        yield found


def package(number: int, version: int) -> tuple[str, bytes]:
    return f"pkgs/App{number}-{version}.pkg", f"package {number} of version {version}".encode() * 40


def catalog(version: int, count: int) -> bytes:
    items: list[dict[str, Any]] = []
    for number in range(count):
        path, content = package(number, version)
        items.append(
            {
                "name": f"App{number}",
                "version": str(version),
                "installer_item_location": path.removeprefix("pkgs/"),
                "installer_item_hash": str(sha256(content)),
            }
        )
    return plistlib.dumps(items)


def fresh(door: Door) -> Repositories:
    """As after a kill: nothing in memory."""
    return Repositories(door.services.catalog, door.services.store.open_blob, now_ms=lambda: 0)


async def read(door: Door, repositories: Repositories, path: str) -> bytes | None:
    """What a client gets; None for 404."""
    listed = await repositories.visible("munki", paths.key(path))
    if listed is None or not listed.available:
        return None
    with os.fdopen(door.services.store.open_blob(listed.content), "rb") as file:
        return file.read()


async def client_version(door: Door, repositories: Repositories) -> int:
    """The version of the catalog that a client reads now, 0 for none; fails if the catalog names what it cannot download, or if the manifest is ahead of it."""
    manifest, encoded = await read(door, repositories, MANIFEST), await read(door, repositories, CATALOG)
    items = plistlib.loads(encoded) if encoded else []
    for item in items:
        content = await read(door, repositories, f"pkgs/{item['installer_item_location']}")
        assert content is not None, item["installer_item_location"]
        assert str(sha256(content)) == item["installer_item_hash"]
    found = int(items[0]["version"]) if items else 0
    assert manifest is None or plistlib.loads(manifest)["version"] <= found
    return found


async def lose(door: Door, content: bytes) -> None:
    await door.services.store.remove(sha256(content))
    await door.services.catalog.lose(sha256(content))


async def take(door: Door, dice: random.Random, files: list[tuple[str, bytes]]) -> AsyncIterator[str]:
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
            assert (await door.publish("munki", path, content)).status == 200
            if path not in here:
                await lose(door, content)
        yield path


async def test_a_catalog_comes_after_all_that_it_names_at_any_point_and_after_any_kill(door: Door, dice: random.Random) -> None:
    living = door.services.repositories
    assert await client_version(door, living) == 0
    newest = 0
    for version, count in ((1, 3), (2, 20), (3, 2)):
        manifest = plistlib.dumps({"catalogs": ["all"], "managed_installs": ["App0"], "version": version})
        files = [*(package(number, version) for number in range(count)), (CATALOG, catalog(version, count)), (MANIFEST, manifest)]
        async for path in take(door, dice, files):
            seen, after_kill = await client_version(door, living), await client_version(door, fresh(door))
            assert newest <= seen == after_kill <= version, path
            newest = seen
        assert newest == version, "all is here"
        shown = await read(door, living, MANIFEST)
        assert shown == manifest
    assert await living.waiting("munki") == (2, [])


async def test_a_package_that_was_removed_stays_as_long_as_a_catalog_that_is_shown_names_it(door: Door) -> None:
    (old, content), (new, newer) = package(0, 1), package(0, 2)
    await door.publish("munki", old, content)
    await door.publish("munki", CATALOG, catalog(1, 1))
    living = door.services.repositories
    assert await client_version(door, living) == 1
    await door.publish("munki", CATALOG, catalog(2, 1))
    assert (await door.ask("POST", "/shares/munki/remove", {"paths": [old]})).status == 200
    assert await client_version(door, living) == await client_version(door, fresh(door)) == 1
    await door.ask("PUT", f"/takedowns/{sha256(content)}", {})
    assert await read(door, living, old) is None, "a takedown stands above all"
    await door.ask("DELETE", f"/takedowns/{sha256(content)}")
    await door.publish("munki", new, newer)
    assert await client_version(door, living) == 2
    assert await read(door, living, old) is None


async def test_what_an_index_waits_for_is_told(door: Door) -> None:
    await door.publish(
        "munki", "catalogs/testing", plistlib.dumps([{"name": "Big", "installer_item_location": "apps/Big 1.dmg", "icon_name": "Big", "icon_hash": "x"}])
    )
    await door.publish("munki", "catalogs/broken", b"<plist>")
    await door.publish("munki", "manifests/mac1", plistlib.dumps({"catalogs": ["testing", "absent"]}))
    await door.publish("munki", "manifests/.DS_Store", b"not for Munki")
    await door.publish("jamf", "catalogs/all", b"not Munki's")
    living = door.services.repositories
    count, waiting = await living.waiting("munki")
    assert count == 3
    assert {held.newest.path: [reference.path for reference in held.missing] for held in waiting} == {
        "catalogs/broken": ["catalogs/broken: not a property list: ExpatError"],
        "catalogs/testing": ["pkgs/apps/Big 1.dmg", "icons/Big.png"],
        "manifests/mac1": ["catalogs/testing"],
    }
    assert await read(door, living, "manifests/.DS_Store") == b"not for Munki"
    assert (await living.visible("jamf", "catalogs/all")) is not None
    await door.publish("munki", "icons/Big.png", b"icon")
    await door.publish("munki", "pkgs/Apps/Big 1.dmg", b"big")
    assert [held.newest.path for held in (await living.waiting("munki"))[1]] == ["catalogs/broken"]
    assert await read(door, living, "manifests/mac1") is not None


async def test_a_package_of_another_hash_does_not_do(door: Door) -> None:
    path, content = package(0, 1)
    await door.publish("munki", CATALOG, catalog(1, 1))
    await door.publish("munki", path, b"something else")
    assert await client_version(door, door.services.repositories) == 0
    await door.publish("munki", path, content)
    assert await client_version(door, door.services.repositories) == 1


async def test_what_was_shown_stays_and_what_is_removed_is_gone(door: Door) -> None:
    path, content = package(0, 1)
    await door.publish("munki", path, content)
    await door.publish("munki", CATALOG, catalog(1, 1))
    living = door.services.repositories
    assert await client_version(door, living) == 1
    await lose(door, content)
    assert await read(door, living, CATALOG) == catalog(1, 1), "a damaged package is healed; the catalog does not come and go"
    await door.ask("POST", "/shares/munki/remove", {"paths": [CATALOG]})
    assert await read(door, living, CATALOG) is None


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
