"""audit: the export of either log, page by page."""

from __future__ import annotations

import json
from pathlib import Path

from cli_terminal import Terminal

from replicad.model.records import Policy
from support.admin_door import Door


async def test_both_logs_are_exported_as_json_lines(door: Door, terminal: Terminal, tmp_path: Path) -> None:
    for number in range(5):
        await door.services.catalog.author("", [Policy(f"share{number}", public=True)])
        await door.ask("POST", "/shares", {"name": "munki", "request": number})
    for flags, noun in ((["--log"], "actions"), ([], "records")):
        shown = (await terminal.json("audit", *flags))[noun]
        assert len(shown) >= 5
        target = tmp_path / noun
        said = await terminal.json("audit", *flags, "--export", str(target))
        assert said == {"file": str(target), "count": len(shown)}
        assert [json.loads(line) for line in target.read_text().splitlines()] == shown
        assert target.stat().st_mode & 0o777 == 0o600
        code, error = await terminal.error("audit", *flags, "--export", str(target))
        assert (code, error["code"]) == (9, "exists")
    code, out, _ = await terminal.run("audit", "--log", "--export", str(tmp_path / "again"))
    assert (code, out) == (0, f"exported 5 actions to {tmp_path / 'again'}\n")
