"""Who may scrape the metrics, and what they look like."""

from __future__ import annotations

from support.admin_door import TOKEN, Door


async def scrape(door: Door, bearer: str, *, over_tcp: bool = True) -> tuple[int, bytes]:
    head = f"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {bearer}\r\n\r\n"
    reply = await door.send(head.encode(), over_tcp=over_tcp)
    return reply.status, reply.body


async def test_metrics_are_for_whoever_may_see_the_node(door: Door) -> None:
    viewer, limited = [(await door.ask("POST", "/tokens", {"role": "viewer", **limits})).json["secret"] for limits in ({}, {"shares": ["munki"]})]
    seen = {bearer: (await scrape(door, bearer and f"Bearer {bearer}"))[0] for bearer in ("", "wrong", viewer, limited, TOKEN)}
    assert seen == {"": 401, "wrong": 401, viewer: 200, limited: 403, TOKEN: 200}
    status, body = await scrape(door, "", over_tcp=False)
    assert status == 200
    assert b"\nprocess_open_fds " in body
