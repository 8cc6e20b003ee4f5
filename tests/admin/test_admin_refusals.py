"""Bad input of every class at every route: the documented error, and nothing has changed."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import msgspec
from test_admin_roles import TABLE, Line, filled, token

from replicad.model.callers import AccessRole
from replicad.server.admin.application import ROUTES
from replicad.server.admin.routes import Route
from support.admin_door import Door

ROUTE = {f"{route.method} {route.path.replace(':.+', '')}": route for route in ROUTES}
STALE = {"If-Match": f'"{"0" * 32}"'}
OTHERS = 1000
"""Longer lists are refused for the size of the whole body first."""


@asynccontextmanager
async def nothing_changed(door: Door) -> AsyncIterator[None]:
    """What is signed, stored, limited, and let in is the same before and after."""

    async def state() -> list[Any]:
        places = ("/audit", "/tokens", "/users", "/limits", "/entries", "/matrix", "/shares", "/takedowns")
        return [*[(await door.ask("GET", place)).json for place in places], (await door.ask("GET", "/store/usage")).json["held"], door.left_behind()]

    before = await state()
    yield
    assert await state() == before


async def test_whoever_waits_for_leave_to_send_a_body_gets_it_and_other_expectations_are_ignored(door: Door) -> None:
    reply = await door.ask("PUT", "/blobs", b"content", headers={"Expect": "a miracle"})
    assert reply.status == 200
    reader, writer = await asyncio.open_unix_connection(str(door.socket))
    writer.write(b"PUT /api/v1/blobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"content")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


def target(name: str, share: str = "munki") -> str:
    """The route's path with something in each place."""
    values = {"share": share, "path": "a.pkg", "id": "ber1", "sha256": "00" * 32, "token": "none", "name": "none", "user": "jane", "upload": "0" * 32}
    return re.sub("{([a-z0-9]+)}", lambda found: values[found[1]], name.partition(" ")[2])


def fields(route: Route[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field or parameter, once for each of its types, as JSON Schema."""
    (reference,), schemas = msgspec.json.schema_components([route.asks], ref_template="{name}")

    def resolved(schema: dict[str, Any]) -> dict[str, Any]:
        return schemas[schema["$ref"]] if "$ref" in schema else schema

    for name, schema in schemas[reference["$ref"]]["properties"].items():
        for one in schema.get("anyOf", [schema]):
            yield name, resolved(one)


def beyond(schema: dict[str, Any], *, in_query: bool) -> Iterator[Any]:
    """Values of the wrong type, too long, too short, too large or of the wrong form."""
    kind = schema.get("type")
    if not in_query:
        yield [[[]]]
    if kind in {"integer", "number", "boolean"} or "format" in schema or "enum" in schema:
        yield "x!"
    if "maxLength" in schema or "pattern" in schema:
        yield "!" * (schema.get("maxLength", 8192) + 1)
    if schema.get("minLength"):
        yield ""
    for bound, step in (("minimum", -1), ("maximum", 1), ("exclusiveMinimum", 0), ("exclusiveMaximum", 0)):
        if bound in schema:
            yield schema[bound] + step
    if schema.get("minItems"):
        yield []
    if schema.get("maxItems", OTHERS) < OTHERS:
        yield ["x"] * (schema["maxItems"] + 1)


def unbounded(schema: dict[str, Any], name: str) -> Iterator[str]:
    """Where a caller could give as much as it likes."""
    for one in schema.get("anyOf", [schema]):
        kind, keys = one.get("type"), one.keys()
        bounds = {
            "string": keys & {"maxLength", "pattern", "format"},
            "integer": "maximum" in one and keys & {"minimum", "exclusiveMinimum"},
            "number": "maximum" in one and keys & {"minimum", "exclusiveMinimum"},
            "array": "maxItems" in one,
            "object": keys & {"maxProperties", "properties"},
        }
        if not bounds.get(kind, True):
            yield name
        for inner in ("items", "additionalProperties"):
            if isinstance(one.get(inner), dict):
                yield from unbounded(one[inner], f"{name}[]")
        for field, below in one.get("properties", {}).items():
            yield from unbounded(below, f"{name}.{field}")


def test_every_field_has_a_bound() -> None:
    _, schemas = msgspec.json.schema_components([route.asks for route in ROUTES], ref_template="{name}")
    assert [place for name, schema in schemas.items() for place in unbounded(schema, name)] == []


async def test_values_out_of_their_bounds(door: Door) -> None:
    """Of wrong type, too long, too short, too large, of the wrong form: 400 that names the field."""
    asked = 0
    async with nothing_changed(door):
        for name, route in ROUTE.items():
            in_query = route.raw or route.method in {"GET", "DELETE"}
            for field, schema in fields(route):
                for value in beyond(schema, in_query=in_query):
                    query = f"?{field}={quote(str(value))}" if in_query else ""
                    reply = await door.ask(
                        route.method,
                        target(name) + query,
                        None if in_query else {field: value, **{other: one for other, one in (TABLE[name].body or {}).items() if other != field}},
                    )
                    assert (reply.status, reply.json["code"]) == (400, "bad-input"), (name, field, str(value)[:80], reply.body)
                    assert reply.json["detail"].startswith(field), (name, reply.json)
                    asked += 1
    assert asked > 150


async def test_bodies_that_are_no_objects_or_too_large(door: Door) -> None:
    async with nothing_changed(door):
        for name, route in ROUTE.items():
            if route.method in {"GET", "DELETE"}:
                continue
            if route.method in {"OPTIONS", "HEAD"} or "/uploads" in name:  # tus says the length elsewhere, see tests of uploads
                continue
            if not route.raw:
                for body in (b"[]", b"{", b"\xff"):
                    reply = await door.ask(route.method, target(name), body)
                    assert (reply.status, reply.json["code"]) == (400, "bad-input"), (name, body)
            size = route.body_bytes_max + 1 if not route.raw else 1 << 60
            reply = await door.send(f"{route.method} /api/v1{target(name)} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
            assert (reply.status, reply.json["code"]) in {(400, "too-long"), (507, "no-space")}, (name, reply.body)


async def test_what_somebody_else_has_changed_meanwhile(door: Door) -> None:
    await door.admit("ber1")
    await door.ask("POST", "/users", {"name": "jane", "role": "viewer", "password": "correct horse battery"})
    edits = [name for name, route in ROUTE.items() if route.state and route.writes]
    assert len(edits) >= 4
    async with nothing_changed(door):
        for name in edits:
            reply = await door.ask(ROUTE[name].method, target(name), TABLE[name].body, headers=STALE)
            assert (reply.status, reply.json["code"]) == (412, "stale"), name


async def test_a_key_that_stood_for_another_request(door: Door) -> None:
    key = {"Idempotency-Key": "once"}
    assert (await door.ask("POST", "/tokens", {"role": "viewer"}, headers=key)).status == 200
    async with nothing_changed(door):
        for name, route in ROUTE.items():
            if route.repeatable:
                body = {"role": "admin"} if name == "POST /tokens" else filled(TABLE[name].body, SHARE="munki", PATH="a.pkg")
                reply = await door.ask(route.method, target(name), body, headers=key)
                assert (reply.status, reply.json["code"]) == (409, "key-reused"), name


async def test_a_token_that_was_revoked(door: Door) -> None:
    bearer = await token(door, AccessRole.ADMIN, name="gone")
    await door.ask("DELETE", "/tokens/gone")
    async with nothing_changed(door):
        for name in (name for name, route in ROUTE.items() if not route.open and route.method != "HEAD"):
            reply = await door.ask(ROUTE[name].method, target(name), _body(TABLE[name]), headers=bearer, over_tcp=True)
            assert (reply.status, reply.json["code"]) == (401, "unauthorized"), name


async def test_a_share_that_does_not_exist(door: Door) -> None:
    async with nothing_changed(door):
        for name, line in TABLE.items():
            if "{share}" in name or "SHARE" in json.dumps(line.body):
                reply = await door.ask(name.partition(" ")[0], target(name, share="none"), _body(line, share="none"))
                assert (reply.status, reply.json["code"]) == (404, "no-such-share"), (name, reply.body)


def _body(line: Line, share: str = "munki") -> Any:
    return filled(line.body, SHARE=share, PATH="a.pkg")
