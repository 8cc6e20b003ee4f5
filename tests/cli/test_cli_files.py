"""publish, ls, show, get, wait against a real admin door over a real catalog and store."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_terminal import Terminal

from replicad.cli import publish, share
from replicad.cli import upload as uploads
from replicad.cli.client import Client
from replicad.cli.output import Output
from replicad.cli.progress import Progress
from replicad.cli.scan import Source, identity, scan
from replicad.cli.wait import wait_for
from replicad.errors import NoSpaceError, ReplicadError
from replicad.model.ids import Digest
from replicad.server.admin import bodies, nouns
from support.admin_door import TOKEN, Door
from support.waiting import until

MIB = 1 << 20
LINGERING_S = 10.0
"""aiohttp's default: so long the daemon reads on after it has refused an upload, unless the client stops."""
REPOSITORY = {"a.pkg": 100, "pkgs/b.pkg": 70_000, "pkgs/empty": 0, "pkgs/big.dmg": 3 * MIB + 17}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Some small files, an empty one, and a large one."""
    root = tmp_path / "repository"
    for name, size in REPOSITORY.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.urandom(size))
    return root


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.sockets
async def test_a_directory_is_published_and_comes_back(door: Door, terminal: Terminal, repository: Path, tmp_path: Path) -> None:
    answer = await terminal.json("publish", str(repository), "--share", "munki", "--as", "x")
    files = {f"x/{name}": repository / name for name in REPOSITORY}
    assert {one["path"]: (one["sha256"], one["size"], one["state"], one["stage"]) for one in answer["published"]} == {
        path: (digest(file), file.stat().st_size, "new", "prod") for path, file in files.items()
    }
    assert (answer["share"], answer["dry_run"], answer["waited"]) == ("munki", False, None)
    entries = (await terminal.json("ls", "munki/x/pkgs"))["entries"]
    assert [entry["path"] for entry in entries] == ["x/pkgs/b.pkg", "x/pkgs/big.dmg", "x/pkgs/empty"]
    for path, file in files.items():
        got = await terminal.json("get", f"munki/{path}", "-o", str(tmp_path / "got"))
        assert got == {"file": str(tmp_path / "got"), "size": file.stat().st_size, "sha256": digest(file)}
        assert (tmp_path / "got").read_bytes() == file.read_bytes()
    again = await terminal.json("publish", str(repository), "--share", "munki", "--as", "x", "--wait", "all")
    assert {one["state"] for one in again["published"]} == {"unchanged"}
    assert again["waited"]["state"] == "done"
    assert door.left_behind() == []


async def test_what_publish_tells_people(door: Door, terminal: Terminal, repository: Path) -> None:
    code, out, err = await terminal.run("publish", str(repository / "a.pkg"), "--share", "munki", "--wait", "all")
    assert code == 0
    assert out.startswith("published  munki/a.pkg  100 B  sha256 ")
    assert err.startswith("replicated to 1 of 1 node in 0.")
    code, out, _ = await terminal.run("publish", str(repository), "--share", "munki", "--dry-run")
    assert code == 0
    assert "would publish  4 files to munki  3.1 MiB  (3 new, 1 unchanged)" in out
    assert len((await terminal.json("ls"))["entries"]) == 1


async def test_a_publication_that_replaces_says_so_and_what_the_name_was(door: Door, terminal: Terminal, tmp_path: Path) -> None:
    await door.publish("munki", "CONF3.txt", b"one")
    (tmp_path / "b").write_bytes(b"two")
    arguments = ("publish", str(tmp_path / "b"), "--share", "munki", "--as")
    for more, said in ((["--dry-run"], "would replace"), ([], "replaced")):
        code, out, err = await terminal.run(*arguments, "conf3.txt", *more)
        assert (code, out.startswith(f"{said}  munki/conf3.txt  3 B  sha256 "), "  (was CONF3.txt)  " in out, err) == (0, True, True, "")
    assert [one["former"] for one in (await terminal.json(*arguments, "conf3.txt"))["published"]] == [None]
    assert "(was" not in (await terminal.run(*arguments, "other.txt"))[1]


async def test_a_lower_stage_that_hides_the_last_one_is_warned_of(door: Door, terminal: Terminal, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / name).write_text(name)
        if name != "c":
            await door.publish("munki", name, b"before")
    arguments = ("publish", str(tmp_path / "x"), "--share", "munki", "--stage", "dev")
    assert [one["hides"] for one in (await terminal.json(*arguments, "--dry-run"))["published"]] == ["prod", "prod", None]
    code, _, err = await terminal.run(*arguments)
    assert (code, err.splitlines()[0]) == (
        0,
        "warning: munki/a and 1 more: clients of nodes that carry stage dev get this instead of what stands at prod",
    )
    assert "replicad peer set NODE --stage prod" in err
    assert (await terminal.run("publish", str(tmp_path / "x"), "--share", "munki"))[2] == ""


async def test_nothing_below_a_prefix_is_not_found_and_an_empty_share_is(door: Door, terminal: Terminal) -> None:
    assert (await terminal.json("ls", "munki/"))["entries"] == []
    code, error = await terminal.error("ls", "munki/nosuch")
    assert (code, error["code"], error["hint"]) == (4, "no-such-file", "replicad ls munki")


async def test_an_empty_name_is_not_the_current_directory(door: Door, terminal: Terminal) -> None:
    code, error = await terminal.error("publish", "", "--share", "munki")
    assert (code, error["code"], "for the current directory write ." in error["message"]) == (2, "usage", True)


async def test_a_token_that_expired_is_shown_as_such(door: Door, terminal: Terminal) -> None:
    await terminal.run("share", "token", "create", "munki", "ci", "--expires", "1d")
    code, out, _ = await terminal.run("share", "show", "munki")
    assert (code, "token     ci, until " in out, "(expired)" in out) == (0, True, False)
    one = nouns.ShareToken("ci", "2020-01-01T00:00:00Z")
    assert share._until(one.expires or "").endswith(" (expired)")


async def test_bounds_are_those_of_the_options(door: Door, terminal: Terminal) -> None:
    await door.publish("munki", "a", b"one")
    for arguments, said in (
        (("peer", "invite", "--expires", "48h"), "--expires: at most 24h"),
        (("url", "sign", "munki/a", "--expires", "0s"), "--expires: at least 1s"),
        (("rollback", "munki/a", "--to", "x"), "--to: 8 to 64 digits of a record's id expected, in lower case"),
        (("share", "create", "x", "--checksums", "crc"), "--checksums: invalid enum value 'crc'"),
    ):
        code, error = await terminal.error(*arguments)
        assert (code, error["message"], error["code"]) == (2, said, "bad-input")


async def test_many_files_get_one_line(door: Door, terminal: Terminal, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / f"{number}.pkg").write_text(str(number))
    _, out, _ = await terminal.run("publish", str(tmp_path / "many"), "--share", "munki")
    assert out.splitlines()[0].startswith("published  30 files to munki")
    assert len(out.splitlines()) == 1


async def test_the_only_share_is_meant(door: Door, terminal: Terminal, repository: Path, tmp_path: Path) -> None:
    code, error = await terminal.error("publish", str(repository))
    assert (code, error["message"]) == (2, "which share? there are several: jamf, munki")
    assert "--share" in error["hint"]


async def test_nothing_is_published_if_anything_is_wrong(door: Door, terminal: Terminal, repository: Path) -> None:
    (repository / "bad:name").touch()
    code, error = await terminal.error("publish", str(repository), "--share", "munki")
    assert (code, error["code"]) == (2, "bad-path")
    (repository / "bad:name").unlink()
    code, error = await terminal.error("publish", str(repository), "--share", "none")
    assert (code, error["code"]) == (4, "no-such-share")
    code, error = await terminal.error("publish", str(repository), "--share", "munki", "--stage", "none")
    assert (code, error["code"]) == (2, "no-such-stage")
    assert await terminal.json("publish", str(repository / "a.pkg"), "--share", "jamf")
    (repository / "a.pkg").write_text("other")
    code, error = await terminal.error("publish", str(repository), "--share", "jamf")
    assert (code, error["code"]) == (9, "immutable")
    assert len((await terminal.json("ls"))["entries"]) == 1


@pytest.mark.parametrize("name", ["a.pkg", "pkgs/big.dmg"])
@pytest.mark.parametrize("change", ["written", "replaced", "shorter", "longer"])
async def test_a_file_that_changed_since_the_scan(door: Door, repository: Path, name: str, change: str) -> None:
    sources = scan([repository], "")
    file = repository / name
    if change == "written":
        file.write_bytes(os.urandom(file.stat().st_size))
    elif change == "replaced":
        (repository / "new").write_bytes(file.read_bytes())
        (repository / "new").replace(file)
    else:
        os.truncate(file, file.stat().st_size + (1 if change == "longer" else -1))
    with pytest.raises(uploads.FileChangedError, match=f"{name} changed while it was being published"):
        await asyncio.to_thread(uploads.upload, Client(socket_path=str(door.socket)), sources, "munki", lambda _count: None)
    await until(lambda: not door.left_behind(), what="the end of the upload")


@pytest.mark.parametrize("name", ["a.pkg", "pkgs/big.dmg"])
async def test_a_file_that_went_away_since_the_scan(door: Door, repository: Path, name: str) -> None:
    sources = scan([repository], "")
    (repository / name).unlink()
    with pytest.raises(uploads.FileChangedError, match=f"{name} changed while it was being published"):
        await asyncio.to_thread(uploads.upload, Client(socket_path=str(door.socket)), sources, "munki", lambda _count: None)
    await until(lambda: not door.left_behind(), what="the end of the upload")


@pytest.mark.parametrize("change", [lambda file: file.unlink(), lambda file: file.write_bytes(b"changed")], ids=["gone", "written"])
def test_a_dry_run_notices_a_file_that_changed_since_the_scan(repository: Path, change: Callable[[Path], object]) -> None:
    sources = scan([repository], "")
    change(repository / "a.pkg")
    with pytest.raises(uploads.FileChangedError, match=r"a\.pkg changed while"):
        publish.hash_locally(sources, Progress(Output(quiet=True), "checking", total_bytes=0))


async def test_a_file_that_holds_more_than_it_says(door: Door) -> None:
    """Its size is 0 before and after."""
    sources = scan([Path("/proc/version")], "")
    with pytest.raises(uploads.FileChangedError, match="changed while"):
        await asyncio.to_thread(uploads.upload, Client(socket_path=str(door.socket)), sources, "munki", lambda _count: None)


async def test_a_disk_that_fails_under_a_large_file_is_told_of_the_file(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of the daemon."""
    monkeypatch.setattr(uploads, "LAST_BLOCK_BYTES", 2 * MIB)
    with Path("/proc/self/mem").open("rb") as file:  # its first page is none: reading it is an input/output error
        source = Source("/proc/self/mem", "a", 2 * MIB, identity(os.fstat(file.fileno())))
        with pytest.raises(ReplicadError, match=r"cannot read /proc/self/mem: input/output error") as caught:
            await asyncio.to_thread(uploads.upload, Client(socket_path=str(door.socket)), [source], "munki", lambda _count: None)
    assert caught.value.error_code == "unreadable"


async def test_a_directory_that_cannot_be_read_is_named_among_all_problems(terminal: Terminal, tmp_path: Path, unprivileged: None) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    code, error = await terminal.error("publish", str(tmp_path / "shut"), str(tmp_path / "gone"))
    assert (code, error["code"]) == (1, "unreadable")
    assert f"cannot read {tmp_path}/shut: permission denied\n" in error["message"]
    assert f"cannot read {tmp_path}/gone: no such file" in error["message"]
    code, error = await terminal.error("publish", str(tmp_path / "shut"))
    assert (code, error["message"]) == (6, f"cannot read {tmp_path}/shut: permission denied")


async def test_a_large_file_that_changes_while_it_is_read(door: Door, repository: Path) -> None:
    """The change comes after everything but the last block has left."""
    file = repository / "pkgs" / "big.dmg"
    sources = scan([file], "")
    sent: list[int] = []

    def change(count: int) -> None:
        sent.append(count)
        with file.open("r+b") as writing:
            writing.write(b"changed")

    with pytest.raises(uploads.FileChangedError):
        await asyncio.to_thread(uploads.upload, Client(socket_path=str(door.socket)), sources, "munki", change)
    assert sent == [3 * MIB + 17 - uploads.LAST_BLOCK_BYTES]
    await until(lambda: not door.left_behind(), what="the end of the upload")
    assert (await door.services.catalog.usage()).contents == 0


async def test_a_refusal_in_the_middle_of_an_upload_is_told(door: Door, tmp_path: Path) -> None:
    """1 TiB of nothing: the daemon has no room for it and says so before it was sent."""
    file = tmp_path / "sparse"
    file.touch()
    os.truncate(file, 1 << 40)
    started_s = time.monotonic()
    with pytest.raises(NoSpaceError):
        await asyncio.to_thread(uploads.upload, Client(socket_path=str(door.socket)), scan([file], ""), "munki", lambda _count: None)
    assert time.monotonic() - started_s < LINGERING_S


async def test_uploads_are_batched(repository: Path) -> None:
    jobs = list(uploads.batches(scan([repository], "")))
    assert [[source.path for source in job] for job in jobs] == [["pkgs/big.dmg"], ["a.pkg", "pkgs/b.pkg", "pkgs/empty"]]
    many = scan([repository / "a.pkg"], "") * 600
    assert [len(job) for job in uploads.batches(many)] == [256, 256, 88]
    wide = scan([repository / "pkgs" / "b.pkg"], "") * 150
    assert [len(job) for job in uploads.batches(wide)] == [119, 31]


async def test_who_shows_no_bar_waits_with_its_first_request(door: Door, terminal: Terminal, repository: Path) -> None:
    """Each request makes the daemon look at every name."""
    await terminal.json("publish", str(repository), "--share", "munki")
    client, asked = Client(socket_path=str(door.socket)), list[float]()

    class Noted:
        def ask(self, method: str, path: str, *, body: bodies.Wait, **more: Any) -> nouns.Waited:
            asked.append(body.timeout_s)
            answer = client.ask(method, path, body=msgspec.structs.replace(body, timeout_s=0.0), **more)
            return msgspec.structs.replace(answer, state="pending") if len(asked) == 1 else answer

    entries = [bodies.WaitEntry(path="a.pkg")]
    _, code = await asyncio.to_thread(wait_for, Noted(), Output(), share="munki", entries=entries, nodes="all", timeout_s=None)
    assert (code, asked) == (0, [bodies.LONG_POLL_S_MAX] * 2)


async def test_get_verifies_and_leaves_no_wrong_file(door: Door, terminal: Terminal, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await terminal.json("publish", str(repository), "--share", "munki")
    blob = door.services.store.path_of(Digest.parse(digest(repository / "pkgs" / "big.dmg")))
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    code, error = await terminal.error("get", "munki/pkgs/big.dmg")
    assert (code, error["code"]) == (7, "integrity")
    (here / "kept").write_text("precious")
    assert (await terminal.error("get", "munki/pkgs/big.dmg", "-o", "kept"))[0] == 7
    assert [(file.name, file.read_text()) for file in here.iterdir()] == [("kept", "precious")]
    os.truncate(blob, MIB)
    assert (await terminal.error("get", "munki/pkgs/big.dmg"))[0] == 5
    assert [file.name for file in here.iterdir()] == ["kept"]


async def test_where_get_writes(door: Door, terminal: Terminal, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await terminal.json("publish", str(repository), "--share", "munki")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, out, _ = await terminal.run("get", "munki/pkgs/b.pkg")
    assert (code, out) == (0, f"b.pkg  68.4 KiB  sha256 {digest(repository / 'pkgs' / 'b.pkg')}\n")
    assert digest(tmp_path / "here" / "b.pkg") == digest(repository / "pkgs" / "b.pkg")
    assert (tmp_path / "here" / "b.pkg").stat().st_mode & 0o777 == 0o644
    assert (await terminal.run("get", "munki/pkgs/b.pkg", "-o", str(tmp_path)))[0] == 0
    assert (tmp_path / "b.pkg").exists()
    assert (await terminal.error("get", "munki/pkgs/b.pkg", "-o", str(tmp_path / "none" / "b.pkg")))[0] == 1
    assert (await terminal.error("get", "munki/none"))[0] == 4


async def test_what_cannot_be_written_is_told_of_the_target(door: Door, terminal: Terminal, repository: Path, tmp_path: Path) -> None:
    """Not of the daemon, which is fine; and a device is written to, never replaced."""
    await terminal.json("publish", str(repository), "--share", "munki")
    for name in ("full", "null"):
        (tmp_path / name).symlink_to(f"/dev/{name}")
    code, error = await terminal.error("get", "munki/pkgs/b.pkg", "-o", str(tmp_path / "full"))
    assert (code, error["code"], error["message"]) == (1, "unwritable", f"cannot write {tmp_path}/full: no space left on device")
    assert (await terminal.run("get", "munki/pkgs/b.pkg", "-o", str(tmp_path / "null")))[0] == 0
    assert (tmp_path / "full").is_symlink()
    assert (tmp_path / "null").is_symlink()


async def test_get_to_standard_output(door: Door, terminal: Terminal, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await terminal.json("publish", str(repository), "--share", "munki")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "replicad", "--config", str(terminal.config), "get", "munki/pkgs/big.dmg", "-o", "-", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    assert (child.returncode, out) == (0, (repository / "pkgs" / "big.dmg").read_bytes())


async def test_show_and_matrix_for_people(door: Door, terminal: Terminal, repository: Path) -> None:
    await door.admit("nyc2")
    await terminal.json("publish", str(repository / "a.pkg"), "--share", "munki")
    _, out, _ = await terminal.run("show", "munki/A.pkg")
    assert "file       munki/a.pkg\n" in out
    assert "copy       ams1: ok\n" in out
    assert "copy       nyc2: not known (offline)\n" in out
    _, out, _ = await terminal.run("matrix", "--incomplete")
    assert [line.split() for line in out.splitlines()] == [["FILE", "STAGE", "ams1", "nyc2", "COPIES"], ["munki/a.pkg", "prod", "ok", "--", "1/2"]]
    _, out, _ = await terminal.run("status")
    assert "DEGRADED" in out
    assert "peers   0 of 1 linked" in out
    assert "! nyc2: connection refused at 10.4.0.9:8440; next try in 4 min   -> replicad peer check nyc2" in out


async def test_listings_of_several_pages_are_whole(door: Door, terminal: Terminal) -> None:
    blob = {"sha256": await door.upload(b"x"), "size": 1}
    await door.ask("POST", "/shares/munki/entries", {"entries": [{"path": f"{number % 7}/{number}.pkg", **blob} for number in range(2100)]})
    assert len((await terminal.json("ls"))["entries"]) == 2100
    assert len((await terminal.json("ls", "munki/3"))["entries"]) == 300
    assert len((await terminal.json("matrix"))["rows"]) == 2100
    assert (await terminal.json("matrix", "--incomplete"))["rows"] == []


async def test_waiting_for_more_nodes_than_there_are_publishes_nothing(door: Door, terminal: Terminal, repository: Path) -> None:
    await door.admit("nyc2")
    await door.admit("dev1", stages=("dev",))
    for options, wanting in (((), 2), (("--stage", "dev"), 3), (("--dry-run",), 2)):
        code, error = await terminal.error("publish", str(repository), "--share", "munki", "--wait", "9", *options)
        assert (code, error["message"]) == (2, f"nodes: 9 nodes can never hold it, it is wanted by {wanting}")
    assert (await terminal.json("ls"))["entries"] == []
    assert door.services.store.used_bytes == 0
    assert (await terminal.run("publish", str(repository / "a.pkg"), "--share", "munki", "--wait", "2", "--timeout", "0s"))[0] == 8


async def test_waiting_ends_with_3_or_8(door: Door, terminal: Terminal, repository: Path) -> None:
    await door.admit("nyc2")
    code, _, err = await terminal.run("publish", str(repository / "a.pkg"), "--share", "munki", "--wait", "all")
    assert code == 3
    assert "replicated to 1 of 2 nodes in 0." in err
    assert "(nyc2 is offline and will catch up)" in err
    assert (await terminal.json("wait", "munki/a.pkg", code=3))["state"] == "linked"
    code, _, err = await terminal.run("wait", "munki/a.pkg", "--nodes", "2", "--timeout", "0.2s")
    assert code == 8
    assert "replication goes on" in err
    assert (await terminal.run("wait", "munki/a.pkg", "--nodes", "50%"))[0] == 0
    assert (await terminal.error("wait", "munki/a.pkg", "--nodes", "3"))[1]["code"] == "too-many-nodes"
    assert (await terminal.error("wait", "munki/none"))[0] == 4


async def test_a_remote_node_by_url(door: Door, terminal: Terminal, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{door.port}"
    code, error = await terminal.error("--url", url, "ls")
    assert (code, error["code"], error["hint"]) == (6, "unauthorized", "replicad login URL, or set REPLICAD_TOKEN")
    monkeypatch.setenv("REPLICAD_TOKEN", TOKEN)
    await terminal.json("--url", url, "publish", str(repository), "--share", "munki", "--wait", "1")
    got = await terminal.json("--url", url, "get", "munki/pkgs/big.dmg", "-o", str(tmp_path / "got"))
    assert got["sha256"] == digest(repository / "pkgs" / "big.dmg")
    assert (await terminal.json("--url", url, "id"))["id"] == str(door.services.node)


async def test_checksums_come_with_what_is_published(door: Door, terminal: Terminal, repository: Path) -> None:
    """Nothing computes them afterwards here."""
    assert (await terminal.run("share", "set", "munki", "--checksums", "md5"))[0] == 0
    await terminal.json("publish", str(repository), "--share", "munki")
    listed = (await terminal.json("ls", "munki"))["entries"]
    assert len(listed) > 1
    assert [one["checksums"] for one in listed] == [{"md5": hashlib.md5((repository / one["path"]).read_bytes()).hexdigest()} for one in listed]
    assert f"\nmd5        {listed[0]['checksums']['md5']}\n" in (await terminal.run("show", f"munki/{listed[0]['path']}"))[1]


async def test_share_verbs(door: Door, terminal: Terminal) -> None:
    code, out, err = await terminal.run("share", "create", "fonts", "--stages", "test, prod", "--immutable")
    assert (code, out[: out.index(", created")]) == (0, "fonts: private, immutable, stages test < prod")
    assert "share set fonts --public" in err
    assert (await terminal.error("share", "create", "fonts"))[0] == 9
    assert (await terminal.json("share", "set", "fonts", "--checksums", "sha512, md5"))["share"]["checksums"] == ["md5", "sha512"]
    assert "immutable, checksums md5, sha512, stages" in (await terminal.run("share", "show", "fonts"))[1]
    assert (await terminal.json("share", "set", "fonts", "--checksums", "none"))["share"]["checksums"] == []
    code, error = await terminal.error("share", "create", "other", "--checksums", "md6")
    assert (code, "md6" in error["message"]) == (2, True)
    assert (await terminal.json("share", "set", "fonts", "--public"))["share"]["public"] is True
    assert [one["name"] for one in (await terminal.json("share", "list"))["shares"]] == ["fonts", "jamf", "munki"]
    assert (await terminal.error("share", "show", "none"))[0] == 4
    assert (await terminal.error("share", "create", "No Good"))[0] == 2


async def test_an_interrupted_upload_ends_every_thread(door: Door, repository: Path) -> None:
    def interrupt(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await asyncio.to_thread(uploads.upload, Client(socket_path=str(door.socket)), scan([repository], ""), "munki", interrupt)
    await until(lambda: not door.left_behind(), what="the end of the uploads")
    assert (await terminal_names(door)) == []


async def terminal_names(door: Door) -> list[str]:
    """Every name that is there."""
    return [listed.path for listed in await door.services.catalog.entries()]
