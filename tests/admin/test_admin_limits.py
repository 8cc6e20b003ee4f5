"""The door's limits: what was set over what is configured, all of a change or nothing, and windows that begin and end with the minute."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from replicad.model.limits import Limits, Window
from replicad.net.pace import Paces
from replicad.services.limits import LimitsService
from support.admin_door import Door

MB = 10**6


async def test_limits_are_set_and_set_back(door: Door) -> None:
    bob = await door.admit("bob")
    assert (await door.ask("PUT", "/members/bob/limit", {"rate": "3 MB/s"})).json["name"] == "bob"
    assert (await door.ask("POST", "/members/bob/pause")).status == 200
    shown = (
        await door.ask("PATCH", "/limits", {"rates": {"download": "5 MB/s", "site:syd1": "1 MB/s"}, "windows": ["mon-sun 00:00-24:00 upload 2 MB/s"]})
    ).json
    assert [(one["scope"], one["name"], one["now_bytes_s"], one["bytes_s"], one["origin"]) for one in shown["limits"]] == [
        ("download", "", 5 * MB, 5 * MB, "set"),
        ("upload", "", 2 * MB, None, "configuration"),
        ("site:syd1", "", MB, MB, "set"),
        (str(bob.key.id), "bob", 3 * MB, 3 * MB, "set"),
    ]
    assert (shown["paused"], shown["windows_origin"]) == (["bob"], "set")
    (peer,) = (await door.ask("GET", "/status")).json["peers"]
    assert (peer["paused"], peer["limit_bytes_s"]) == (True, 3 * MB)
    again = LimitsService(door.services.catalog, Paces(), configured=Limits(), zone=None, clock_ms=door.services.clock_ms, changed=lambda: None)
    await again.load()
    assert again.rows() == door.services.limits.rows(), "a restart forgets what was set"
    assert again.is_paused(bob.key.id)

    await door.ask("PATCH", "/limits", {"rates": {"download": "default", "site:syd1": "default"}, "windows": None})
    await door.ask("PUT", "/members/bob/limit", {"rate": "none"})
    await door.ask("POST", "/members/bob/resume")
    shown = (await door.ask("GET", "/limits")).json
    assert [(one["scope"], one["now_bytes_s"], one["origin"]) for one in shown["limits"]] == [
        ("download", None, "configuration"),
        ("upload", None, "configuration"),
    ]
    assert (shown["paused"], shown["windows"]) == ([], [])


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("PATCH", "/limits", {"rates": {"download": "1 MB/s", "upload": "fast"}}, "upload: "),
        ("PATCH", "/limits", {"rates": {"download": "1 MB/s", "sideways": "1 MB/s"}}, "limit: "),
        ("PATCH", "/limits", {"rates": {"download": "1 MB/s"}, "windows": ["mon-fri"]}, "windows: "),
        ("PATCH", "/limits", {"rates": {"download": "1 B/s"}}, "16 KiB/s to 1 TB/s"),
        ("PATCH", "/limits", {"rates": {"download": 5}}, "rates"),
        ("PUT", "/members/bob/limit", {"rate": "5"}, "rate: "),
        ("PUT", "/members/eve/limit", {"rate": "5 MB/s"}, "eve"),
        ("PUT", "/members/ams1/limit", {"rate": "5 MB/s"}, "ams1 is this node itself"),
        ("POST", "/members/ams1/pause", None, "ams1 is this node itself"),
    ],
)
async def test_a_bad_limit_changes_nothing(door: Door, method: str, path: str, body: Any, named: str) -> None:
    await door.admit("bob")
    before = (await door.ask("GET", "/limits")).json
    reply = await door.ask(method, path, body)
    assert reply.status in {400, 404}
    assert named in reply.json["detail"]
    assert (await door.ask("GET", "/limits")).json == before


async def test_a_window_begins_and_ends_with_the_minute(door: Door) -> None:
    now_s = datetime(2026, 11, 23, 7, 58, 20, tzinfo=UTC).timestamp()
    seen: list[tuple[str, int | None]] = []
    paces = Paces()
    configured = Limits({"download": 5 * MB}, (Window.parse("mon 08:00-08:02 download 1 MB/s"),))

    def note() -> None:
        seen.append((datetime.fromtimestamp(now_s, UTC).strftime("%H:%M:%S"), paces.down.throttle.rate([""])))

    limits = LimitsService(door.services.catalog, paces, configured=configured, zone=UTC, clock_ms=lambda: int(now_s * 1000), changed=note)
    await limits.load()
    for _ in range(6):
        now_s += limits.minute()
    assert seen == [("07:58:20", 5 * MB), ("08:00:00", MB), ("08:02:00", 5 * MB)]
