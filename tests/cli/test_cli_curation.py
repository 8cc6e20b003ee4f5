"""promote, history, rollback, rm, undelete, takedown, and the versions that lost: against a real admin door over a real catalog and store."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from cli_terminal import Terminal

from replicad.cli import output
from replicad.model.records import Entry
from support.admin_door import Door


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_a_file_goes_through_its_life(door: Door, terminal: Terminal, tmp_path: Path) -> None:
    await door.publish("munki", "a.pkg", b"one")
    await door.publish("munki", "a.pkg", b"two", stage="dev", publisher="jane")
    assert (await terminal.json("promote", "munki/a.pkg", "--to", "prod"))["changes"][0]["sha256"] == sha256(b"two")
    told = (await terminal.json("history", "munki/a.pkg"))["records"]
    assert [(one["stage"], one["kind"], one["source"], one["state"]) for one in told] == [
        ("prod", "promote", "dev", "current"),
        ("dev", "publish", None, "superseded"),
        ("prod", "publish", None, "superseded"),
    ]
    assert (told[1]["publisher"], told[1]["origin"], told[1]["available"], told[1]["size"]) == ("jane", "ams1", True, 3)
    code, out, _ = await terminal.run("history", "munki/a.pkg")
    assert (code, out.count("\n")) == (0, 4)
    assert "promote from dev" in out
    assert (await terminal.json("rollback", "munki/a.pkg"))["changes"][0]["sha256"] == sha256(b"one")
    assert (await terminal.json("rollback", "munki/a.pkg", "--to", told[0]["record"]))["changes"][0]["sha256"] == sha256(b"two")
    target = tmp_path / "old"
    assert (await terminal.json("get", "munki/a.pkg", "--record", told[2]["record"][:8], "-o", str(target)))["sha256"] == sha256(b"one")
    assert target.read_bytes() == b"one"

    code, out, _ = await terminal.run("rm", "munki/a.pkg", "--dry-run")
    assert (code, "would remove  munki/a.pkg  prod" in out, "would remove  1 name of munki" in out) == (0, True, True)
    removed = await terminal.json("rm", "munki/a.pkg")
    assert (removed["names"], removed["changes"][0]["kind"]) == (1, "remove")
    assert (await terminal.json("ls"))["entries"] == []
    assert (await terminal.json("undelete", "munki/a.pkg"))["changes"][0]["sha256"] == sha256(b"two")
    assert [one["path"] for one in (await terminal.json("ls"))["entries"]] == ["a.pkg"]


async def test_a_directory_is_brought_back_after_a_look_at_it(door: Door, terminal: Terminal) -> None:
    for path in ("x/a", "x/b/c"):
        await door.publish("munki", path, path.encode())
    assert (await terminal.run("rm", "munki/x/", "--yes"))[0] == 0
    code, out, err = await terminal.run("undelete", "munki/x/", "--dry-run")
    assert (code, [line.split("  ")[:2] for line in out.splitlines()], err) == (
        0,
        [["would restore", "munki/x/a"], ["would restore", "munki/x/b/c"], ["would restore", "2 names of munki"]],
        "",
    )
    assert (await terminal.json("ls"))["entries"] == []
    code, out, _ = await terminal.run("undelete", "munki/x")
    assert (code, out.splitlines()[-1]) == (0, "restored  2 names of munki")
    assert [one["path"] for one in (await terminal.json("ls"))["entries"]] == ["x/a", "x/b/c"]


async def test_refusals_end_with_the_right_code(door: Door, terminal: Terminal) -> None:
    await door.publish("jamf", "a", b"one")
    for arguments, expected in (
        (("promote", "munki/nothing", "--to", "prod"), (4, "no-such-file")),
        (("promote", "jamf/a", "--to", "nowhere"), (2, "no-such-stage")),
        (("rollback", "jamf/a"), (9, "immutable")),
        (("history", "munki/nothing"), (4, "no-such-file")),
        (("rm", "munki/nothing"), (4, "no-such-file")),
        (("rm", "jamf/a", "--expect", "2"), (9, "not-as-expected")),
        (("undelete", "jamf/a"), (9, "not-removed")),
        (("undelete", "jamf/b"), (4, "not-removed")),
        (("get", "jamf/a", "--record", "0" * 8), (4, "no-such-record")),
        (("takedown", "munki/nothing"), (4, "no-such-file")),
        (("takedown", "0" * 64, "--lift"), (4, "no-such-takedown")),
    ):
        code, error = await terminal.error(*arguments)
        assert (code, error["code"]) == expected, arguments
    assert error["hint"] == ""
    assert (await door.ask("PUT", "/takedowns/xyz", {})).status == 400
    assert (await door.ask("GET", "/shares/munki/history/a?after=nonsense")).status == 400
    assert [one["path"] for one in (await terminal.json("ls"))["entries"]] == ["a"]


async def test_the_history_comes_in_pages(door: Door) -> None:
    for number in range(5):
        await door.publish("munki", "a", str(number).encode())
    seen: list[str] = []
    query = "limit=2"
    while True:
        page = (await door.ask("GET", f"/shares/munki/history/a?{query}")).json
        seen += [one["sha256"] for one in page["records"]]
        if page["next"] is None:
            break
        query = f"limit=2&after={page['next']}"
    assert seen == [sha256(str(number).encode()) for number in (4, 3, 2, 1, 0)]


async def test_a_sibling_is_listed_and_retrieved(door: Door, terminal: Terminal, tmp_path: Path) -> None:
    await door.publish("munki", "Foo.pkg", b"one")
    won = await door.listed("munki", "foo.pkg")
    await door.upload(b"two")
    [manifest] = await door.services.ingest.receive_small([b"two"])
    catalog = door.services.catalog
    [rival] = await catalog.author("munki", [Entry("foo.pkg", "prod", manifest.content, 3, manifest.id, won.modified)])
    shown = await terminal.json("show", "munki/FOO.PKG")
    [loser] = shown["others"]
    assert {shown["entry"]["record"], loser["record"]} == {str(won.record), str(rival.id)}
    code, out, _ = await terminal.run("show", "munki/foo.pkg")
    assert (code, f"sibling    stage prod, sha256 {loser['sha256']}" in out, f"record {loser['record'][:12]}" in out) == (0, True, True)
    assert " conflict" in (await terminal.run("ls"))[1]
    await terminal.json("get", "munki/foo.pkg", "--record", loser["record"], "-o", str(tmp_path / "lost"))
    assert sha256((tmp_path / "lost").read_bytes()) == loser["sha256"]
    await catalog.lose(manifest.content)
    code, error = await terminal.error("get", "munki/foo.pkg", "--record", str(rival.id))
    assert (code, error["code"], "ams1 published it" in error["message"]) == (5, "not-here", True)


@pytest.mark.parametrize("kept", ["winner", "sibling"])
async def test_a_conflict_is_settled_as_show_says(door: Door, terminal: Terminal, kept: str) -> None:
    await door.publish("munki", "a", b"one")
    assert "conflict" not in (await terminal.run("show", "munki/a"))[1]
    won = await door.listed("munki", "a")
    [manifest] = await door.services.ingest.receive_small([b"two"])
    await door.services.catalog.author("munki", [Entry("a", "prod", manifest.content, 3, manifest.id, won.modified)])
    shown = await terminal.json("show", "munki/a")
    chosen = shown["entry"] if kept == "winner" else shown["others"][0]
    assert "to settle it: replicad rollback munki/a --to RECORD" in (await terminal.run("show", "munki/a"))[1]
    await terminal.json("rollback", "munki/a", "--to", chosen["record"][:12])
    shown = await terminal.json("show", "munki/a")
    assert (shown["entry"]["sha256"], shown["others"]) == (chosen["sha256"], [])


async def test_a_file_and_a_directory_of_one_name_are_a_conflict(door: Door, terminal: Terminal) -> None:
    await door.publish("munki", "a", b"one")
    won = await door.listed("munki", "a")
    await door.services.catalog.author("munki", [Entry("A/b", "prod", won.content, won.size, won.manifest, won.modified)])
    assert (await terminal.json("show", "munki/a"))["collides"] == "A/b"
    assert "conflict   munki/a is a file, too: remove one of them" in (await terminal.run("show", "munki/a/b"))[1]
    await terminal.json("rm", "munki/A/b")
    assert (await terminal.json("show", "munki/a"))["collides"] is None


async def test_a_takedown_shows_everywhere_and_is_lifted(door: Door, terminal: Terminal) -> None:
    for path, stage in (("a", "prod"), ("b", "prod"), ("c", "dev")):
        await door.publish("munki", path, b"bad", stage=stage)
    await door.publish("munki", "c", b"other")
    code, error = await terminal.error("takedown", "munki/c")
    assert (code, "different contents at prod, dev" in error["message"]) == (2, True)
    down = await terminal.json("takedown", "munki/c", "--stage", "dev", "--reason", "licence")
    assert down == {"sha256": sha256(b"bad"), "taken_down": True, "changed": True}
    assert not (await terminal.json("takedown", sha256(b"bad")))["changed"]
    listed = {one["path"]: one for one in (await terminal.json("ls"))["entries"]}
    assert {path: (one["available"], one["taken_down"]) for path, one in listed.items()} == dict.fromkeys("abc", (False, True))
    [standing] = (await door.ask("GET", "/takedowns")).json["takedowns"]
    assert (standing["sha256"], standing["reason"], standing["origin"]) == (sha256(b"bad"), "licence", "ams1")
    assert "taken down" in (await terminal.run("ls"))[1]
    assert "taken down: no node serves it" in (await terminal.run("show", "munki/a"))[1]
    assert "1 content taken down" in (await terminal.run("status"))[1]
    assert [one["copies_wanted"] for one in (await terminal.json("matrix", "--incomplete"))["rows"]] == []
    for arguments in (("get", "munki/a"), ("wait", "munki/a"), ("get", "munki/a", "--record", listed["a"]["record"])):
        code, error = await terminal.error(*arguments)
        assert (code, error["code"]) == (6, "taken-down"), arguments
    await terminal.json("takedown", sha256(b"bad"), "--lift")
    assert {one["path"]: one["available"] for one in (await terminal.json("ls"))["entries"]} == dict.fromkeys("abc", True)


async def test_a_person_is_asked_and_sees_what_would_go(door: Door, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(25):
        await door.publish("munki", f"d/{number:02}", str(number).encode())
    answers = iter("ny")
    monkeypatch.setattr(output.Output, "asks", property(lambda out: not out.as_json))
    monkeypatch.setattr(output.click, "confirm", lambda question, **_: print(question) or next(answers) == "y")  # noqa: T201
    code, out, err = await terminal.run("rm", "munki/d")
    assert (code, "Remove 25 names of munki?" in out, "and 5 more" in err, "nothing was changed" in err) == (1, True, True, True)
    code, out, err = await terminal.run("rm", "munki/d")
    assert (code, "look with --dry-run; if it is right: --expect 25" in err) == (9, True)
    assert len((await terminal.json("ls"))["entries"]) == 25
    code, out, _ = await terminal.run("rm", "munki/d/", "--expect", "25", "--yes")
    assert (code, out.splitlines()[-1]) == (0, "removed  25 names of munki")


async def test_two_at_once_on_one_node_make_no_conflict(door: Door) -> None:
    await door.publish("munki", "a", b"1", stage="dev")
    replies = await asyncio.gather(*(door.ask("POST", "/shares/munki/promote", {"path": "a", "to": "prod"}) for _ in range(3)))
    assert sorted(reply.status for reply in replies) == [200, 404, 404]
    assert (await door.listed("munki", "a")).siblings == 0


async def test_a_share_goes_when_somebody_has_said_what_goes_with_it(door: Door, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    await door.publish("munki", "a.pkg", b"one")
    assert await terminal.run("share", "remove", "munki", "--dry-run") == (0, "would remove  munki  1 file\n", "")
    assert (await terminal.error("share", "remove", "munki", "--yes"))[1]["code"] == "not-as-expected"
    monkeypatch.setattr(output.Output, "asks", property(lambda out: not out.as_json))
    answers = iter((False, True))
    monkeypatch.setattr("click.confirm", lambda _question, **_options: next(answers))
    assert (await terminal.run("share", "remove", "munki"))[0] == 1
    assert [one["name"] for one in (await terminal.json("share", "list"))["shares"]] == ["jamf", "munki"]
    assert await terminal.run("share", "remove", "munki") == (0, "removed  munki  1 file\n", "")
    assert await terminal.json("share", "remove", "jamf", "--expect", "0") == {"share": "jamf", "names": 0, "removed": True}
    assert (await terminal.json("share", "list"))["shares"] == []


async def test_a_takedown_can_be_looked_at_first(door: Door, terminal: Terminal) -> None:
    await door.publish("munki", "a.pkg", b"one")
    assert await terminal.json("takedown", "munki/a.pkg", "--dry-run") == {"sha256": sha256(b"one"), "taken_down": True, "changed": False}
    assert (await terminal.json("ls"))["entries"][0]["taken_down"] is False
