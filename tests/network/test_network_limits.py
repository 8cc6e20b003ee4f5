"""Limits in real daemons, set while they run: what they let through, who sees them, what survives a restart."""

from __future__ import annotations

import random
import time
from pathlib import Path

from support.network import Network

MIB = 1 << 20
RATE = 2 * MIB
BUCKET = RATE // 4


def test_limits_are_set_live_hold_and_are_kept(network: Network, tmp_path: Path, dice: random.Random) -> None:
    """Only upper bounds are asserted of what comes in a time: a busy machine may always be slower."""
    ams, ber = network.found("ams1"), network.add("ber1", to="ams1")
    ams.cli("share", "create", "munki", "--public")
    network.wait_linked()
    for name in ("usual", "urgent", "later"):
        (tmp_path / f"{name}.pkg").write_bytes(dice.randbytes(3 * MIB))

    shown = ber.ask("limits", "set", "download", "2", "MiB/s")
    assert [(one["scope"], one["now_bytes_s"], one["origin"]) for one in shown["limits"]] == [("download", RATE, "set"), ("upload", None, "configuration")]
    begun = time.monotonic()
    ams.cli("publish", str(tmp_path / "usual.pkg"))
    ber.wait_for_file("munki/usual.pkg")
    assert RATE * (time.monotonic() - begun) + BUCKET >= 3 * MIB

    ber.cli("limits", "set", "windows", "mon-sun 00:00-24:00 download 0 B/s")
    ams.cli("publish", str(tmp_path / "later.pkg"))
    ams.cli("publish", str(tmp_path / "urgent.pkg"), "--urgent")
    ber.wait_for_file("munki/urgent.pkg")
    assert ber.download("munki/later.pkg").status == 404, "a file that is not urgent passed a limit of zero"

    ams.cli("peer", "pause", "ber1")
    assert "PAUSED" in ams.cli("peer", "list").out
    ber.restart()
    shown = ber.ask("limits", "show")
    assert [(one["scope"], one["now_bytes_s"], one["bytes_s"]) for one in shown["limits"]] == [("download", 0, RATE), ("upload", None, None)]
    assert shown["windows"] == ["mon-sun 00:00-24:00 download 0 B/s"]
    ber.cli("limits", "set", "windows", "default")
    ams.cli("peer", "resume", "ber1")
    ber.wait_for_file("munki/later.pkg")

    text = ber.config.read_text()
    ber.config.write_text(text.replace("[peers]\n", '[limits]\nupload = "7 MB/s"\n\n[fetch]\nfiles_at_once = 2\n\n[peers]\n', 1))
    assert ber.ask("reload") == {"applied": ["limits.upload"], "restart": ["fetch.files_at_once"]}
    counts = {one["key"]: one for one in ber.api("config")["settings"]}
    assert counts["limits.upload"] == {
        "key": "limits.upload",
        "value": '"7 MB/s"',
        "origin": f"{ber.config}:{text.count(chr(10), 0, text.index('[peers]')) + 2}",
    }
    assert counts["fetch.files_at_once"]["origin"] == "default", "it counts after a restart"
    shown = ber.ask("limits", "set", "download", "default")
    assert [one["now_bytes_s"] for one in shown["limits"]] == [None, 7_000_000]
    assert "expected, got" in ber.cli("limits", "set", "windows", "mon 25:00-26:00 download none", code=2).err
