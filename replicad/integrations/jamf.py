"""Jamf Pro: package records and an HTTPS distribution point for what a share has below ``Packages/``, through the Jamf Pro API (11.5 and 11.16).

What to do is decided here from what stands there and what the share has; a record is read, changed and written whole, because a PUT replaces everything. Never run against a live Jamf Pro server: the test
double is written from the API's documentation.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

from replicad.errors import InputError, NotAllowedError, ReplicadError, UnreachableError

DIRECTORY = "Packages/"
EXTENSIONS = (".pkg", ".mpkg", ".dmg", ".zip")
ANSWER_BYTES_MAX = 16 << 20
TIMEOUT_S = 60.0
PAGE = 100
NONE = "-1"
NEW_PACKAGE: Mapping[str, Any] = {
    "categoryId": NONE,
    "priority": 10,
    "fillUserTemplate": False,
    "uninstall": False,
    "rebootRequired": False,
    "osInstall": False,
    "suppressUpdates": False,
    "suppressFromDock": False,
    "suppressEula": False,
    "suppressRegistration": False,
}
NEW_POINT: Mapping[str, Any] = {
    "principal": False,
    "fileSharingConnectionType": "NONE",
    "backupDistributionPointId": NONE,
    "enableLoadBalancing": False,
    "httpsSecurityType": "NONE",
}
"""What the API demands of a new record beside its name, with the values that its own forms begin with."""

Kind = Literal["package", "distribution point"]
Action = Literal["create", "update", "unchanged"]


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one record: ``body`` is what is written, None if nothing is. ``id`` is empty for a new one."""

    kind: Kind
    name: str
    action: Action
    id: str = ""
    body: Mapping[str, Any] | None = None


def package_step(existing: Mapping[str, Any] | None, *, file_name: str, sha256: str, sha512: str) -> Step:
    """The record of a package: a new one, or the one that stands there with the hashes of these bytes."""
    wanted = {"sha256": sha256, "hashType": "SHA_512", "hashValue": sha512}
    if existing is None:
        return Step("package", file_name, "create", body={**NEW_PACKAGE, "packageName": file_name, "fileName": file_name, **wanted})
    return _changed("package", file_name, existing, wanted)


def point_step(existing: Mapping[str, Any] | None, *, name: str, url: str, share: str) -> Step:
    """The distribution point ``name`` at a node's clients' door. InputError unless its URL is https."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise InputError(
            f"a distribution point needs the https address of a node's clients' door, not {url}", hint="set [downloads] url, or: --node-url https://HOST"
        )
    context = "/".join(part for part in (parts.path.strip("/"), share) if part)
    wanted = {"serverName": parts.hostname, "httpsEnabled": True, "httpsPort": parts.port or 443, "httpsContext": context}
    if existing is None:
        return Step("distribution point", name, "create", body={**NEW_POINT, "name": name, **wanted})
    return _changed("distribution point", name, existing, wanted)


def _changed(kind: Kind, name: str, existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> Step:
    if all(existing.get(field) == value for field, value in wanted.items()):
        return Step(kind, name, "unchanged", str(existing["id"]))
    return Step(kind, name, "update", str(existing["id"]), {**existing, **wanted})


def file_names(paths: Iterable[str]) -> dict[str, str]:
    """File name to path of what Jamf Pro can take: files directly below ``Packages/`` with one of its extensions."""
    below = (path for path in paths if path.startswith(DIRECTORY) and "/" not in path[len(DIRECTORY) :])
    return {path[len(DIRECTORY) :]: path for path in below if path.lower().endswith(EXTENSIONS)}


class JamfPro:
    """A session with a Jamf Pro server, one request at a time. ``url`` is https; http only for a loopback address."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if not parts.hostname or parts.scheme not in {"https", "http"} or (parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "localhost"}):
            raise InputError(f"--server {url!r}: write https://HOST[:PORT]")
        self._url = parts
        self._token = ""

    def log_in(self, client_id: str, secret: str) -> None:
        """As an API client; NotAllowedError if it is none. The newer of the two addresses first."""
        form = urlencode({"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}).encode()
        for path in ("/api/v1/oauth/token", "/api/oauth/token"):
            status, answer = self._send("POST", path, form, "application/x-www-form-urlencoded")
            if status == HTTPStatus.OK and isinstance(answer, dict) and isinstance(answer.get("access_token"), str):
                self._token = answer["access_token"]
                return
            if status != HTTPStatus.NOT_FOUND:
                break
        raise NotAllowedError(f"Jamf Pro does not take this API client ({status})", hint="Settings > API roles and clients; a new secret after changing roles")

    def package(self, file_name: str) -> dict[str, Any] | None:
        """The record of that file name, whole."""
        return self._find("/api/v1/packages", "fileName", file_name)

    def point(self, name: str) -> dict[str, Any] | None:
        """The distribution point of that name."""
        return self._find("/api/v1/distribution-points", "name", name)

    def apply(self, step: Step) -> None:
        """Write what the step says."""
        if step.body is None:
            return
        path = "/api/v1/packages" if step.kind == "package" else "/api/v1/distribution-points"
        body = json.dumps(step.body).encode()
        if step.action == "create":
            self._ask("POST", path, body)
        else:
            self._ask("PUT", f"{path}/{step.id}", body)

    def _find(self, path: str, field: str, value: str) -> dict[str, Any] | None:
        """By an RSQL filter; compared again, because a filter may be looser than it looks."""
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        query = urlencode({"filter": f'{field}=="{quoted}"', "page": 0, "page-size": PAGE, "sort": "id:asc"})
        answer = self._ask("GET", f"{path}?{query}", None)
        results: Sequence[Any] = answer.get("results", []) if isinstance(answer, dict) else []
        return next((found for found in results if isinstance(found, dict) and found.get(field) == value and "id" in found), None)

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        status, answer = self._send(method, path, body, "application/json")
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise NotAllowedError(
                f"Jamf Pro refuses {method} {urlsplit(path).path} ({status})",
                hint="the API role needs Create, Read and Update of Packages and Distribution Points",
            )
        if status >= HTTPStatus.BAD_REQUEST:
            errors = answer.get("errors", []) if isinstance(answer, dict) else []
            says = "; ".join(str(error.get("description") or error.get("code")) for error in errors if isinstance(error, dict))
            raise ReplicadError(f"Jamf Pro answered {status} to {method} {urlsplit(path).path}{f': {says[:500]}' if says else ''}")
        return answer

    def _send(self, method: str, path: str, body: bytes | None, content_type: str) -> tuple[int, Any]:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        headers = {"Accept": "application/json", "Content-Type": content_type} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        try:
            with contextlib.closing(kind(str(self._url.hostname), self._url.port, timeout=TIMEOUT_S)) as connection:
                connection.request(method, self._url.path.rstrip("/") + path, body=body, headers=headers)
                response = connection.getresponse()
                encoded = response.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"Jamf Pro at {self._url.netloc}: {error}") from None
        try:
            return response.status, json.loads(encoded) if encoded else None
        except ValueError:
            return response.status, None
