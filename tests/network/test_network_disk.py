"""The disk of a node, with real daemons: it fills up and gets room again; it rots and is healed."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.network import Network, Node
from support.storing import flip
from support.waiting import wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(240), pytest.mark.needs("root", "mount")]
MIB = 1 << 20
DISK_BYTES, LARGER_BYTES = 300 * MIB, 700 * MIB
BIG_FILES, BIG_BYTES = 5, 100 * MIB


def mount(path: Path, *options: str) -> None:
    """Only root can do that."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "replicad-test", str(path)], check=True)


@pytest.fixture
def on_small_disk() -> Iterator[Callable[[Path], None]]:
    """Moves a directory onto a file system of its own, which is gone afterwards."""
    mounted: list[Path] = []

    def move(path: Path) -> None:
        content = path.with_name(f"{path.name}.before")
        path.rename(content)
        path.mkdir()
        mount(path, f"size={DISK_BYTES}")
        mounted.append(path)
        shutil.copytree(content, path, dirs_exist_ok=True)

    yield move
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def problems(node: Node) -> dict[str, str]:
    """Code to message. Asked over TCP, because that is asked again and again."""
    return {problem["code"]: problem["message"] for problem in node.api("status")["problems"]}


def test_a_full_disk_is_said_and_goes_on_by_itself_and_rot_is_healed(
    on_small_disk: Callable[[Path], None], network: Network, tmp_path: Path, dice: random.Random
) -> None:
    ams = network.found("ams1")
    ber = network.node("ber1")
    on_small_disk(ber.data)
    ber.start().cli("peer", "add", "-", stdin=ams.cli("peer", "invite").lines[-1])
    ams.cli("share", "create", "munki", "--public")
    files = {f"small{number}": dice.randbytes(dice.randrange(40, 100_000)) for number in range(50)}
    (tmp_path / "small").mkdir()
    for path, content in files.items():
        (tmp_path / "small" / path).write_bytes(content)
    ams.cli("publish", str(tmp_path / "small"), "--wait", "all", "--timeout", "60s")

    big = {f"big{number}": dice.randbytes(BIG_BYTES) for number in range(BIG_FILES)}
    (tmp_path / "big").mkdir()
    for path, content in big.items():
        (tmp_path / "big" / path).write_bytes(content)
    ams.cli("publish", str(tmp_path / "big"), deadline_s=60)
    wait_for(lambda: "disk-full" in problems(ber), what="ber1 to say that its disk is full", deadline_s=60)
    assert "fetching pauses until there are" in problems(ber)["disk-full"]
    wait_for(lambda: "goes on when there is room" in ber.log, what="the log to say it", deadline_s=60)
    assert "bytes free, and storage.reserve keeps " in ber.log
    said = ber.run("check")
    assert (said.code, said.out.startswith("REPLICAD CRITICAL - "), "free on the disk" in said.out) == (2, True, True)
    assert {path: ber.download(f"munki/{path}").body for path in files} == files
    assert any(ber.download(f"munki/{path}", method="HEAD").status == 404 for path in big)
    mount(ber.data, "remount", f"size={LARGER_BYTES}")
    for path, content in big.items():
        ber.wait_for_file(f"munki/{path}", deadline_s=60)
        assert ber.download(f"munki/{path}").body == content
    wait_for(lambda: not problems(ber), what="ber1 to be well again")

    ams.stop()
    blobs = [path for path in (ber.data / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == len(files) + len(big)
    for path in (path for path in blobs if path.stat().st_size < MIB):
        flip(path, at=dice.randrange(path.stat().st_size))
    assert len(ber.ask("store", "scrub", "now")["damaged"]) == 50
    assert "damaged" in problems(ber)
    assert sum(ber.download(f"munki/{path}", method="HEAD").status == 200 for path in [*files, *big]) == len(big)
    assert len(list((ber.data / "aside").iterdir())) == 50
    ams.start()
    for path, content in {**files, **big}.items():
        ber.wait_for_file(f"munki/{path}", deadline_s=120)
        assert ber.download(f"munki/{path}").body == content
    ber.cli("store", "verify")
    assert "damaged" not in problems(ber)
    wait_for(lambda: not list((ber.data / "aside").iterdir()), what="the damaged copies to go")
