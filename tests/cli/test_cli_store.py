"""store and check: against a real admin door over a real catalog and store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cli_terminal import Terminal

from replicad.cli import check
from replicad.server.admin import nouns
from support.admin_door import Door
from support.storing import MIB, flip, manifest_of, random_bytes

FILES = {"a": random_bytes(2 * MIB + 5), "b": b"small", "c": b"another"}


@asynccontextmanager
async def scrubbing(door: Door) -> AsyncIterator[None]:
    """The door's scrub runs meanwhile."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(door.services.scrub.run())
        yield
        running.cancel()


async def test_what_rotted_is_told_everywhere(door: Door, terminal: Terminal) -> None:
    for path, content in FILES.items():
        await door.publish("munki", path, content)
    async with scrubbing(door):
        assert (await terminal.json("store", "verify")) == {"files": 3, "bytes": sum(map(len, FILES.values())), "damaged": []}
        code, out, _ = await terminal.run("check", "-w", "0", "-c", "0%")
        assert (code, out.startswith("REPLICAD OK - ams1: 3 files, "), out.count("\n")) == (0, True, 1)
        flip(door.services.store.path_of(manifest_of(FILES["a"]).content), at=MIB)
        [damaged] = (await terminal.json("store", "verify", "--sample", "100%", code=7))["damaged"]
        assert (damaged["name"], damaged["detail"], damaged["aside"]) == ("munki/a", "1 of 3 chunks wrong", True)
        code, out, err = await terminal.run("store", "scrub", "now")
        assert (code, out, err) == (0, "read 2 files, 12 B: all of them right\n", "")
    [problem] = (await terminal.json("status"))["problems"]
    assert problem["code"] == "damaged"
    assert "1 file damaged on this disk: munki/a (1 of 3 chunks wrong); not served, kept aside" in problem["message"]
    assert ("content", "failed") in {(one["check"], one["state"]) for one in (await terminal.json("doctor", code=1))["findings"]}
    code, out, _ = await terminal.run("check", "-w", "0", "-c", "0")
    assert (code, out.startswith("REPLICAD CRITICAL - 1 file damaged"), out.count("\n")) == (2, True, 1)
    usage = await terminal.json("store", "usage")
    assert usage["aside"] == {"files": 1, "bytes": len(FILES["a"])}
    assert usage["held"] == {"files": 2, "bytes": 12}
    assert [place for place in usage["places"] if place["files"]] == [
        {"share": "munki", "stage": "prod", "files": 3, "bytes": len(FILES["a"]) + 12, "held_files": 2, "held_bytes": 12}
    ]
    code, out, _ = await terminal.run("store", "usage")
    assert (code, "damaged  munki/a  1 of 3 chunks wrong  kept aside" in out, "munki  prod" in out) == (0, True, True)
    await door.upload(FILES["a"])
    assert (await terminal.json("status"))["problems"] == []


async def test_kept_aside_is_said_only_of_what_is(door: Door, terminal: Terminal) -> None:
    """Of a file that went nothing is, nor of a small one that is whole again before the answer is made."""
    await door.publish("munki", "b", b"small")
    door.services.store.path_of(manifest_of(b"small").content).unlink()
    async with scrubbing(door):
        code, out, _ = await terminal.run("store", "verify")
    assert (code, out.splitlines()[0]) == (7, "damaged  munki/b  it is not on the disk any more")
    [problem] = (await terminal.json("status"))["problems"]
    assert problem["message"].endswith("munki/b (it is not on the disk any more); not served, fetched again as soon as a peer has it")


def remove(place: Path) -> str:
    place.rename(place.with_name("elsewhere"))
    return "is out of reach: No such file or directory"


def unmount(place: Path) -> str:
    remove(place)
    place.mkdir()
    return "is another directory than when the daemon started: is its file system mounted?"


@pytest.mark.parametrize("spoil", [remove, unmount])
@pytest.mark.parametrize("name", ["blobs", "partials", "uploads", "aside"])
async def test_a_directory_out_of_reach_is_named_with_the_reason(door: Door, terminal: Terminal, name: str, spoil: Callable[[Path], str]) -> None:
    await door.publish("munki", "a", b"content")
    words = f"{door.data / name} {spoil(door.data / name)}"
    [problem] = (await terminal.json("status"))["problems"]
    assert (problem["code"], problem["message"], problem["hint"].startswith("put it back (mount")) == ("storage", words, True)
    code, out, _ = await terminal.run("check", "-w", "0", "-c", "0")
    assert (code, out.startswith(f"REPLICAD CRITICAL - {words} -> put it back"), out.count("\n")) == (2, True, 1)
    assert ("disk", "failed") in {(one["check"], one["state"]) for one in (await terminal.json("doctor", code=1))["findings"]}


@pytest.mark.parametrize(("mode", "why"), [(0, "is out of reach: Permission denied"), (0o500, "cannot be written: no permission, or a read-only file system")])
async def test_a_directory_without_permission_is_named_with_the_reason(door: Door, unprivileged: None, mode: int, why: str) -> None:
    assert door.services.store.places.faults() == []
    (door.data / "partials").chmod(mode)
    assert door.services.store.places.faults() == [f"{door.data / 'partials'} {why}"]


async def test_a_start_without_any_file_asks_for_the_mount(door: Door, terminal: Terminal) -> None:
    for path, content in FILES.items():
        await door.publish("munki", path, content)
    for content in FILES.values():
        door.services.store.path_of(manifest_of(content).content).unlink()
    await terminal.json("store", "repair")
    [problem] = (await terminal.json("status"))["problems"]
    assert problem["message"].startswith("3 files damaged on this disk: munki/")
    assert problem["message"].count(f"(there are no files in {door.data}/blobs: is its file system mounted?); not served") == 1


async def test_a_catalog_that_was_taken_away_is_said_with_what_to_do(door: Door, terminal: Terminal) -> None:
    (door.data / "catalog.sqlite").unlink()
    code, out, _ = await terminal.run("status")
    assert (code, "DEGRADED" in out) == (0, True)
    [problem] = (await terminal.json("status"))["problems"]
    assert (problem["code"], problem["message"].startswith(f"{door.data}/catalog.sqlite is not there any more")) == ("catalog", True)
    assert ("catalog", "failed") in {(one["check"], one["state"]) for one in (await terminal.json("doctor", code=1))["findings"]}
    code, out, _ = await terminal.run("check", "-w", "0", "-c", "0")
    assert (code, out.startswith(f"REPLICAD CRITICAL - {problem['message']} -> replicad backup create FILE now"), out.count("\n")) == (2, True, 1)


@pytest.mark.parametrize("gone", ["catalog.sqlite", "catalog.sqlite-wal"])
async def test_no_change_is_taken_that_would_go_with_the_catalog(door: Door, terminal: Terminal, tmp_path: Path, gone: str) -> None:
    (tmp_path / "b").write_bytes(b"more")
    await door.publish("munki", "a", b"content")
    await door.publish("munki", "a", b"newer", stage="dev")
    (door.data / gone).unlink()
    for verb in (
        ("publish", "--share", "munki", str(tmp_path / "b")),
        ("promote", "munki/a", "--to", "prod"),
        ("rm", "munki/a"),
        ("share", "set", "munki", "--private"),
        ("token", "create", "--role", "viewer"),
        ("limits", "set", "download", "2", "MiB/s"),
    ):
        code, error = await terminal.error(*verb)
        assert (code, error["code"], error["message"].startswith(f"{door.data / gone} is not there any more")) == (10, "catalog", True), verb
        assert error["hint"].startswith("replicad backup create FILE now")
    reply = await door.ask("PUT", "/blobs", b"more")
    assert (reply.status, reply.json["code"]) == (500, "catalog")
    await terminal.json("get", "munki/a", "-o", str(tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == b"newer"
    made = await terminal.json("backup", "create", str(tmp_path / "backup"))
    assert made["backup"]["files"] == 2


async def test_collecting_and_repairing_say_what_they_did(door: Door, terminal: Terminal) -> None:
    await door.publish("munki", "a", b"named")
    await door.upload(b"nameless")
    previewed = await terminal.json("store", "gc", "--dry-run")
    assert previewed == {"due": [], "files": 0, "bytes": 0, "waiting": {"files": 1, "bytes": 8}, "removed": False}
    door.services.collect.grace_ms = 0
    code, out, _ = await terminal.run("store", "gc", "--dry-run")
    assert (code, out.splitlines()[-1]) == (0, "would remove 1 file, 8 B; 0 more, 0 B, stay for their grace")
    [gone] = (await terminal.json("store", "gc"))["due"]
    assert gone["sha256"] == str(manifest_of(b"nameless").content)
    door.services.store.path_of(manifest_of(b"named").content).unlink()
    repaired = await terminal.json("store", "repair")
    assert repaired == {"lost": [str(manifest_of(b"named").content)], "adopted": [], "corrupt": [], "unclaimed": [], "partials": 0, "unreadable": []}
    nothing = ["lost       0 files", "adopted    0 files", "corrupt    0 files", "unclaimed  0 files", "partials   0 leftovers removed"]
    code, out, _ = await terminal.run("store", "repair")
    assert (code, out.splitlines()) == (0, nothing)
    await door.publish("munki", "b", b"lost, too")
    door.services.store.path_of(manifest_of(b"lost, too").content).unlink()
    code, out, _ = await terminal.run("store", "repair")
    assert (code, out.splitlines()) == (0, ["lost       1 file, to be fetched again", *nothing[1:]])


async def test_bad_values_are_named(door: Door, terminal: Terminal) -> None:
    for part in ("0%", "101%", "much", "-5%"):
        assert (await terminal.error("store", "verify", "--sample", part))[0] == 2
    reply = await door.ask("POST", "/store/scrub", {"sample": 0})
    assert (reply.status, reply.json["detail"].startswith("sample: ")) == (400, True)
    code, out, err = await terminal.run("check", "-w", "much")
    assert (code, out.startswith("REPLICAD UNKNOWN - "), out.count("\n"), err) == (3, True, 1, "")
    for arguments in (("check", "-w", "much", "--json"), ("--json", "check", "-w", "much")):
        code, out, err = await terminal.run(*arguments)
        assert (code, json.loads(out)["state"], err) == (3, "UNKNOWN", "")
    told = await terminal.json("check")
    assert (told["state"], told["message"].startswith("ams1: 0 files, ")) == ("OK", True)


async def test_no_daemon_is_critical_and_no_configuration_unknown(terminal: Terminal) -> None:
    told = await terminal.json("check", code=2)
    assert (told["state"], told["message"].startswith("the daemon does not answer")) == ("CRITICAL", True)
    code, out, _ = await terminal.run("check")
    assert (code, out.startswith("REPLICAD CRITICAL - the daemon does not answer"), out.count("\n")) == (2, True, 1)
    terminal.config.write_text("nonsense")
    code, out, _ = await terminal.run("check")
    assert (code, out.startswith("REPLICAD UNKNOWN - "), out.count("\n")) == (3, True, 1)


@pytest.mark.parametrize(
    ("free", "codes", "expected"),
    [
        (50, (), 0),
        (9, (), 1),
        (2, (), 2),
        (50, ("peer-offline",), 1),
        (50, ("peer-offline", "disk-full"), 2),
        (9, ("not-a-member",), 2),
        (0, ("something new",), 2),
    ],
)
def test_the_worst_counts_and_is_said_first(free: int, codes: tuple[str, ...], expected: int) -> None:
    status = nouns.Status(
        node=nouns.Node("X", "ams1", "", "N", "admin", "1", "", 1, "ok"),
        store=nouns.StoreUse(1, 100 - free, free, 1000, 0, 0),
        stages={},
        peers=[],
        problems=[nouns.Trouble(code, f"{code}|\n happened") for code in codes],
    )
    state, words = check.judge(status, warning=10, critical=3)
    assert state == expected
    assert words.startswith("disk-full") == ("disk-full" in codes)
