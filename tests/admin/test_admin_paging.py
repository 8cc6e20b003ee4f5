"""Every list that can be long comes in pages: all of it, nothing twice, in the same order, whatever the size of a page."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from replicad.errors import InputError
from replicad.server.admin import nouns, paging, queries
from replicad.server.admin.application import ROUTES
from support.admin_door import Door

LISTS = {
    "/entries": "entries",
    "/matrix": "rows",
    "/shares": "shares",
    "/members": "peers",
    "/tokens": "tokens",
    "/users": "users",
    "/takedowns": "takedowns",
    "/audit": "records",
    "/audit/log": "actions",
    "/shares/munki/history/a.pkg": "records",
}


@pytest.fixture
async def filled(door: Door) -> Door:
    """At least five of everything."""
    for number in range(5):
        await door.admit(f"node{number % 3}")
        await door.ask("POST", "/shares", {"name": f"share{number}"})
        await door.ask("POST", "/tokens", {"role": "viewer", "name": f"token{number}"})
        await door.ask("POST", "/users", {"name": f"user{number}", "role": "viewer", "password": "correct horse battery"})
        await door.publish("munki", "a.pkg", str(number).encode())
        await door.publish("munki", f"{number}.pkg", f"{number}".encode())
        await door.ask("PUT", f"/takedowns/{number:064x}", {"reason": "why"})
    return door


async def pages(door: Door, path: str, limit: int) -> list[list[Any]]:
    found, after = [], None
    while True:
        reply = await door.ask("GET", f"{path}?limit={limit}" + (f"&after={after}" if after is not None else ""))
        assert reply.status == 200, reply.body
        found.append(reply.json[LISTS[path]])
        after = reply.json["next"]
        if after is None:
            return found


@pytest.mark.parametrize("path", LISTS)
async def test_pages_make_the_whole_list(filled: Door, path: str) -> None:
    [whole] = await pages(filled, path, 1000)
    assert len(whole) >= 5
    for limit in (1, 2, len(whole)):
        found = await pages(filled, path, limit)
        assert [one for page in found for one in page] == whole
        assert max(len(page) for page in found) <= limit
    reply = await filled.ask("GET", f"{path}?after=bm9uc2Vuc2U%3D")
    assert (reply.status, reply.json["code"]) == (400, "bad-input")


def test_every_answer_with_a_next_is_tested() -> None:
    paged = {kind.__name__ for kind in vars(nouns).values() if isinstance(kind, type) and "next" in getattr(kind, "__struct_fields__", ())}
    assert paged == {"Entries", "Matrix", "Shares", "Peers", "Tokens", "Users", "Takedowns", "Audit", "Actions", "Revisions"}
    assert len([route for route in ROUTES if "after" in {field.name for field in structs.fields(route.asks)}]) == len(LISTS)


keys = st.tuples(st.integers(-5, 5), st.text("ab", max_size=3))


@given(st.sets(keys), st.integers(1, 4), st.sets(keys))
def test_what_comes_and_goes_meanwhile_disturbs_nothing_else(there: set[paging.Key], limit: int, changed: set[paging.Key]) -> None:
    seen: list[paging.Key] = []
    shown, after = paging.page(there, queries.PageQuery(limit=limit), lambda one: one)
    while True:
        seen += shown
        if after is None:
            break
        shown, after = paging.page(there ^ changed, queries.PageQuery(after=after, limit=limit), lambda one: one)
    assert len(set(seen)) == len(seen)
    assert seen == sorted(seen)
    if len(there) > limit:
        assert there - changed <= set(seen)
    else:
        assert set(seen) == there


@pytest.mark.parametrize("after", ["x", "bm9uc2Vuc2U=", paging.write([1, 2]), paging.write(["a", "b"]), paging.write([1, "a", "b"])])
def test_a_cursor_of_something_else_is_refused(after: str) -> None:
    with pytest.raises(InputError, match="after"):
        paging.page([(1, "a")], queries.PageQuery(after=after), lambda one: one)
