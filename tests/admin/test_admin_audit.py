"""The audit: everything that was signed, in order, page by page, with why not."""

from __future__ import annotations

from urllib.parse import quote

from replicad.model.ids import Digest
from replicad.model.records import Cut, Role, Takedown
from support.admin_door import Door


async def test_who_did_what_and_what_does_not_count(door: Door) -> None:
    catalog = door.services.catalog
    member = await door.admit("bob", role=Role.PUBLISHER, shares=("munki",), site="ber")
    await door.publish("munki", "a.pkg", b"a", publisher="jane")
    whole = (await door.ask("GET", "/audit")).json
    assert whole["next"] is None
    assert [(one["type"], one["origin_name"], one["subject_name"], one["path"], one["counts"]) for one in whole["records"]] == [
        ("grant", "the network key", "ams1", None, True),
        ("policy", "ams1", None, None, True),
        ("policy", "ams1", None, None, True),
        ("grant", "ams1", "bob", None, True),
        ("entry", "ams1", None, "a.pkg", True),
    ]
    assert whole["records"][3]["detail"] == "publisher; shares munki; site ber"
    assert whole["records"][3]["subject"] == str(member.key.id)
    assert whole["records"][4]["detail"].endswith(" (1 byte) by jane")

    paged, after = [], ""
    while after is not None:
        page = (await door.ask("GET", f"/audit?limit=2{f'&after={after}' if after else ''}")).json
        assert len(page["records"]) <= 2
        paged += page["records"]
        after = page["next"]
    assert paged == whole["records"]
    assert (await door.ask("GET", f"/audit?since={quote('2100-01-01T00:00:00+01:00')}")).json["records"] == []
    assert (await door.ask("GET", f"/audit?since={quote('1970-01-01T00:00:00Z')}")).json == whole

    found = (await door.ask("GET", "/shares/munki/entries/a.pkg")).json["entry"]
    await catalog.author("", [Takedown(Digest.parse(found["sha256"]), reason="a court says so")])
    assert (await door.ask("GET", "/audit")).json["records"][-1]["detail"] == f"{found['sha256']}: taken down, a court says so"

    await catalog.author("", [Cut(door.services.node, {}, "revoke")])
    after_cut = (await door.ask("GET", "/audit")).json["records"]
    assert [one["reason"] for one in after_cut] == ["", *["cut"] * 5, ""], "its own key takes everything back, and that takes effect"
    assert (after_cut[-1]["type"], after_cut[-1]["subject_name"], after_cut[-1]["detail"]) == ("cut", "ams1", "revoke")
