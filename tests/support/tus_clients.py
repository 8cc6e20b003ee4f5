"""The public clients of tus that a test lets upload, each as its own process."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Sequence
from pathlib import Path

from support.network import Node
from support.processes import Process
from support.waiting import wait_for

ROOT = Path(__file__).parents[2]
JAVASCRIPT = ROOT / ".venv" / "javascript"
JAVASCRIPT_NEEDS = ("node", ".venv/javascript/node_modules/tus-js-client")
PROGRAMS = {
    "python": [sys.executable, str(ROOT / "tests" / "support" / "tus_client.py")],
    "javascript": ["node", str(ROOT / "tests" / "javascript" / "tus_client.mjs"), str(JAVASCRIPT)],
}


def start(client: str, node: Node, file: Path, *, share: str, path: str, part_bytes: int) -> Process:
    """Begin to upload the file to that node."""
    token = (node.data / "admin.token").read_text().strip()
    url = f"http://127.0.0.1:{node.admin_port}/api/v1/uploads"
    command = [*PROGRAMS[client], url, token, str(file), share, path, str(part_bytes)]
    return Process(command, log=node.home / f"{client}.log", environ={"NO_PROXY": "*"})


def disk_bytes(node: Node) -> int:
    """What contents take on the node's disk now, whole or not."""
    taken = 0
    for directory in ("blobs", "partials", "uploads", "aside"):
        for path in (node.data / directory).rglob("*"):
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue
            taken += found.st_blocks * 512 * path.is_file()
    return taken


def received_bytes(node: Node) -> int:
    """How many bytes of its only upload the node says are safe; 0 while it does not say anything."""
    token = (node.data / "admin.token").read_text().strip()
    [name, *others] = [path.name for path in (node.data / "uploads").iterdir()] or [""]
    assert not others
    connection = http.client.HTTPConnection("127.0.0.1", node.admin_port, timeout=60)
    try:
        connection.request("HEAD", f"/api/v1/uploads/{name}", headers={"Authorization": f"Bearer {token}", "Tus-Resumable": "1.0.0"})
        return int(connection.getresponse().getheader("Upload-Offset", "0"))
    except OSError:
        return 0
    finally:
        connection.close()


def upload_through_kills(client: str, node: Node, file: Path, *, path: str, part_bytes: int, kill_at: Sequence[int], deadline_s: float) -> int:
    """Upload the file to the share munki, with the daemon killed (SIGKILL) and started again whenever so many bytes are safe; the most that its disk held."""
    peak = 0
    process = start(client, node, file, share="munki", path=path, part_bytes=part_bytes)

    def has(size: int) -> bool:
        nonlocal peak
        peak = max(peak, disk_bytes(node))
        return not process.alive or received_bytes(node) >= size

    try:
        for size in kill_at:
            wait_for(lambda: has(size), what=f"{size} bytes by the {client} client", deadline_s=deadline_s)  # noqa: B023 - called at once
            assert process.alive, process.output()
            node.kill()
            node.start()
        wait_for(lambda: has(1 << 60), what=f"the end of the {client} client", deadline_s=deadline_s)
        assert process.wait() == 0, process.output()
    finally:
        if process.alive:
            process.kill()
    return max(peak, disk_bytes(node))
