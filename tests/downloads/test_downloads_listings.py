"""Listings: one level at a time, for people and for programs, only where the configuration allows it, and only for whoever may download."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path

import pytest
from downloads_world import Client, World
from hypothesis import given
from hypothesis import strategies as st

from replicad.model.entries import Listed
from replicad.server.downloads import listings
from replicad.server.downloads.config import DownloadsConfig
from replicad.server.downloads.targets import DirectoryTarget

pytestmark = pytest.mark.sockets

LISTED = DownloadsConfig(listing=frozenset({"munki", "customers"}))
NOT_FOUND = b"404 Not Found\n"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.share("munki")
    world.share("jamf")
    world.share("customers", public=False)
    for path in ("catalogs/all", "pkgs/Firefox 145.pkg", "pkgs/apps/a&b'c.pkg", "Pkgs/apps/z%41.pkg", "readme.txt", "pkgs-old/x"):
        world.put("munki", path, path.encode())
    world.put("munki", "pkgs/far.pkg", b"still on its way", held=False)
    world.put("jamf", "Packages/a.pkg", b"a")
    world.put("customers", "secret/a.pkg", b"secret")
    return world


async def listed(client: Client, target: str) -> dict[str, object]:
    reply = await client.get(target, "Accept: application/json")
    assert (reply.status, reply.fields["content-type"], reply.fields["vary"]) == (200, "application/json", "Accept")
    found: dict[str, object] = json.loads(reply.body)
    return found


class Links(html.parser.HTMLParser):
    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name == "href"]


async def test_one_level_at_a_time(world: World) -> None:
    async with world.serve(config=LISTED) as client:
        top = await listed(client, "/munki/")
        assert (top["share"], top["path"], top["after"]) == ("munki", "", None)
        assert top["directories"] == ["catalogs", "pkgs", "pkgs-old"]
        assert [one["name"] for one in top["files"]] == ["readme.txt"]  # type: ignore[attr-defined]
        pkgs = await listed(client, "/munki/pkgs/")
        assert (pkgs["path"], pkgs["directories"]) == ("pkgs", ["apps"])
        (firefox,) = pkgs["files"]  # type: ignore[misc]
        whole = await client.get("/munki/pkgs/Firefox%20145.pkg", method="HEAD")
        assert {"name": "Firefox 145.pkg", "size": int(whole.fields["content-length"]), "available": True}.items() <= firefox.items()
        assert f'"{firefox["sha256"]}"' == whole.fields["etag"]
        assert firefox["modified"] == "2023-11-14T22:13:20Z"
        assert len((await listed(client, "/munki/PKGS/Apps/"))["files"]) == 2  # type: ignore[arg-type]


async def test_a_page_for_people(world: World) -> None:
    async with world.serve(config=LISTED) as client:
        page = await client.get("/munki/pkgs/apps/", "Accept: text/html,application/xhtml+xml,*/*;q=0.8")
        assert page.fields["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.fields["content-security-policy"]
        links = Links(page.body).found
        assert links == ["../", "./a%26b%27c.pkg", "./z%2541.pkg"]
        for link in links[1:]:
            assert (await client.get(f"/munki/pkgs/apps/{link[2:]}")).status == 200
        head = await client.get("/munki/pkgs/apps/", method="HEAD")
        assert (head.status, head.body, head.fields["content-length"]) == (200, b"", str(len(page.body)))


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ((), False),
        (("Accept: */*",), False),
        (("Accept: application/json",), True),
        (("Accept: text/html;q=0.5, application/json",), True),
        (("Accept: text/html", "Accept: application/json;q=0.9"), False),
        (("Accept: application/json;q=x",), False),
    ],
)
async def test_who_gets_what(world: World, accept: tuple[str, ...], is_json: bool) -> None:
    async with world.serve(config=LISTED) as client:
        assert ((await client.get("/munki/", *accept)).fields["content-type"] == "application/json") is is_json


async def test_what_is_not_listed_looks_like_what_is_not_there(world: World) -> None:
    async with world.serve(config=LISTED) as client:
        for target in (
            "/jamf/",
            "/jamf/Packages/",
            "/none/",
            "/customers/",
            "/customers/secret/",
            "/munki/none/",
            "/munki/readme.txt/",
            "/munki/pkgs/far.pkg/",
        ):
            reply = await client.get(target, "Accept: application/json")
            assert (reply.status, reply.body) == (404, NOT_FOUND), target
        for target in ("/munki/?after=%ff", f"/munki/?after={'a' * 2000}", "/munki/?" + "a=1&" * 9):
            assert (await client.get(target)).status == 400, target


async def test_what_lies_deep_below_is_not_read(world: World) -> None:
    for number in range(3 * listings.ROWS):
        world.name("munki", f"pkgs/deep/{number:05}.pkg", next(iter(world.held)), size=1)
    async with world.serve(config=LISTED) as client:
        assert (await listed(client, "/munki/"))["directories"] == ["catalogs", "pkgs", "pkgs-old"]
    assert world.read <= 4


@given(
    paths=st.sets(st.lists(st.sampled_from(["a", "b", "c-d", "é", "zz"]), min_size=1, max_size=4).map("/".join), min_size=1, max_size=60),
    directory=st.lists(st.sampled_from(["a", "b"]), max_size=2).map("/".join),
    rows=st.integers(1, 5),
    most=st.integers(1, 4),
)
async def test_the_pages_together_are_the_directory(tmp_path_factory: pytest.TempPathFactory, paths: set[str], directory: str, rows: int, most: int) -> None:
    """Whatever the sizes of pages: every child once."""
    paths = {path for path in paths if not any(other.startswith(f"{path}/") for other in paths)}
    world = World(tmp_path_factory.getbasetemp())
    world.share("munki")
    content = world.put("munki", "zz", b"")
    world.names.clear()
    for path in paths:
        world.name("munki", path, content, size=0)
    below = {path.removeprefix(f"{directory}/" if directory else "") for path in paths if not directory or path.startswith(f"{directory}/")}
    expected = sorted({path.partition("/")[0] + ("/" if "/" in path else "") for path in below})

    async def entries(prefix: str, after: str) -> list[Listed]:
        return await world.entries("munki", prefix=prefix, after=("munki", after), limit=rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listings, "CHILDREN_MAX", most)
        seen: list[str] = []
        after = ""
        while expected:
            page = await listings.read(DirectoryTarget("munki", directory), entries, after=after, shows=lambda _: True)
            seen += [f"{name}/" for name in page.directories] + [one.path.rpartition("/")[2] for one in page.files]
            if not (after := page.after) or len(seen) >= len(expected):
                break
    assert sorted(seen) == expected
