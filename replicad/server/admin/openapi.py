"""The API's own description, OpenAPI 3.1: made from the table of routes and from the types that decode what is asked and encode what is answered, so it cannot say anything else than what they do."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, get_type_hints

import msgspec
from aiohttp import web

from replicad import errors
from replicad.model.paths import PATH_BYTES_MAX
from replicad.server.admin import bodies, cookies, editing, repeating
from replicad.server.admin.nouns import Problem
from replicad.server.admin.problems import CONTENT_TYPE, phrase
from replicad.server.admin.routes import BODILESS, Call, Route

DOCUMENT: web.AppKey[Callable[[], msgspec.Raw]] = web.AppKey("openapi")
"""How the application gets it: when it is asked for, because making it takes longer than all else that making the application takes."""
_OURS = (errors.__name__, __package__)
"""Where the errors come from that the document names: others could be there or not, depending on what else runs in the process."""
_PLACE = re.compile(r"{(\w+)(?::[^}]*)?}")
_ADDRESS = re.compile(r"^(?:GET|HEAD|OPTIONS|PUT|POST|PATCH|DELETE)(?:,? (?:and )?[A-Z]+)* /\S*?[.:](?: |$)")
"""How the docstring of a handler begins."""
_ERROR = re.compile(r"\b(\w+Error)\b(?:\(\"([a-z-]+)\"\))?")
_ABOUT = (
    "What people and programs can ask of one node. Over TCP every request bears a token (`replicad token create`), or the session of a login, which a browser may bear in a cookie: then each write shows `csrf` of the login's answer as `X-CSRF-Token`; `x-role` is the least role that may ask. With a token limited to shares or a directory "
    "an operation whose `x-scoped` is false must name a share, and names in it, within these limits. Errors are problem documents (RFC 9457) whose `code` is stable; unknown fields and parameters "
    "are refused. Every answer carries `X-Request-Id`: the request's own, or a new one."
)


async def document(call: Call[bodies.Nothing]) -> msgspec.Raw:
    """GET /openapi.json: this document."""
    return call.request.app[DOCUMENT]()


@functools.cache
def describe(routes: tuple[Route[Any], ...], *, server: str) -> bytes:
    """The document as JSON for people: indented, in the order of the table, with a line feed at the end."""
    answers = {route: get_type_hints(route.handler)["return"] for route in routes}
    shapes = [route.asks for route in routes if _has_body(route)]
    shapes += [answer for answer in answers.values() if issubclass(answer, msgspec.Struct)]
    kinds: list[type] = [*dict.fromkeys(shapes), Problem]
    references, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(kinds, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(_PLACE.sub(r"{\1}", route.path), {})[route.method.lower()] = _operation(route, answers[route], schema_of)
    whole = {
        "openapi": "3.1.0",
        "info": {"title": "replicad", "version": "1", "description": _ABOUT},
        "servers": [{"url": server}],
        "security": [{"token": []}, {"cookie": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {name: _problem(status, codes, schema_of[Problem]) for status, name, codes in _statuses()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}, "cookie": {"type": "apiKey", "in": "cookie", "name": cookies.SECURE_NAME}},
        },
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"


def _operation(route: Route[Any], answer: type, schema_of: Mapping[type, dict[str, Any]]) -> dict[str, Any]:
    module = route.handler.__module__.rpartition(".")[2]
    found: dict[str, Any] = {
        "operationId": f"{module}.{route.handler.__name__.rstrip('_')}",
        "tags": [module],
        "description": _words(route.handler.__doc__ or ""),
        "x-role": route.role.value,
        "x-scoped": route.scoped,
        **({"security": []} if route.open else {}),
        "parameters": [*_places(route.path), *([] if _has_body(route) else _query(route.asks)), *_headers(route)],
        "responses": {str(int(route.answers)): _good(route, answer, schema_of), **_bad(route)},
    }
    if route.raw:
        found["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    elif _has_body(route):
        required = any(field.required for field in msgspec.structs.fields(route.asks))
        found["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema_of[route.asks]}}}
    return found


def _words(docstring: str) -> str:
    """A handler's docstring for people who do not read Python: without the address, errors by their code."""
    codes = {kind.__name__: kind.code for kind in _tree(errors.ReplicadError)}
    text = _ERROR.sub(lambda found: f"`{found[2] or codes.get(found[1], found[1])}`", _ADDRESS.sub("", inspect.cleandoc(docstring)).replace("``", "`"))
    return text[:1].upper() + text[1:]


def _has_body(route: Route[Any]) -> bool:
    """Whether what is asked stands in a JSON body."""
    return not route.raw and route.method not in BODILESS


def _good(route: Route[Any], answer: type, schema_of: Mapping[type, dict[str, Any]]) -> dict[str, Any]:
    if route.method == "HEAD" or route.answers != HTTPStatus.OK:
        return {"description": "Done."}
    if issubclass(answer, web.StreamResponse):
        return {"description": "The content.", "content": {"application/octet-stream": {}}}
    return {"description": "Done.", "content": {"application/json": {"schema": schema_of.get(answer, {})}}}


def _bad(route: Route[Any]) -> dict[str, Any]:
    """Answers to HEAD have no body."""
    if route.method == "HEAD":
        return {str(status): {"description": phrase(status)} for status, _, _ in _statuses()}
    return {str(status): {"$ref": f"#/components/responses/{name}"} for status, name, _ in _statuses()}


def _places(path: str) -> Iterator[dict[str, Any]]:
    for found in _PLACE.finditer(path):
        yield {"name": found[1], "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": PATH_BYTES_MAX}}


def _query(asks: type) -> Iterator[dict[str, Any]]:
    """A parameter that may be null is one that may be absent."""
    (reference,), schemas = msgspec.json.schema_components([asks], ref_template="{name}")
    shape = schemas[reference["$ref"]]
    for name, schema in shape["properties"].items():
        kinds = [one for one in schema.get("anyOf", [schema]) if one != {"type": "null"}]
        plain = {**kinds[0], **({"default": schema["default"]} if schema.get("default") is not None else {})}
        yield {"name": name, "in": "query", "required": name in shape["required"], "schema": plain}


def _headers(route: Route[Any]) -> Iterator[dict[str, Any]]:
    known = list(route.headers)
    if route.repeatable:
        known.append((repeating.HEADER, repeating.KEY_PATTERN, "Asked again under the same key it is answered again, and done once."))
    if route.state and route.writes:
        known.append((editing.HEADER, editing.TAG_PATTERN, "Only if it is still what had this ETag."))
    for name, pattern, description in known:
        yield {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string", "pattern": pattern}}


def _tree(kind: type[errors.ReplicadError]) -> Iterator[type[errors.ReplicadError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


def _statuses() -> Iterator[tuple[int, str, list[str]]]:
    """Every status that an error has, its name here, and the codes of errors that have it; a more precise code may stand in their place."""
    codes: dict[int, list[str]] = {HTTPStatus.METHOD_NOT_ALLOWED: ["method"], HTTPStatus.INTERNAL_SERVER_ERROR: ["internal"]}
    for kind in _tree(errors.ReplicadError):
        if kind.__module__.startswith(_OURS) and kind.code not in codes.setdefault(kind.http_status, []):
            codes[kind.http_status].append(kind.code)
    for status, known in sorted(codes.items()):
        yield int(status), phrase(status).replace(" ", ""), sorted(known)


def _problem(status: int, codes: list[str], schema: dict[str, Any]) -> dict[str, Any]:
    description = f"{phrase(status)}. `code` is one of {', '.join(codes)}, or a more precise one."
    return {"description": description, "content": {CONTENT_TYPE: {"schema": schema}}}
