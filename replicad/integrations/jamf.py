"""Jamf Pro: package records and an HTTPS distribution point for what a share has below ``Packages/``, through the Jamf Pro API (11.5 and 11.16).

What to do is decided here from what stands there and what the share has. A package record is read, changed and written whole, because a PUT replaces everything; of a distribution point only what is different
is written (PATCH), because its passwords cannot be read. Never run against a live Jamf Pro server: the test double is written from the API's documentation.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit

from replicad.errors import InputError, NotAllowedError, ReplicadError, UnreachableError
from replicad.model.checksums import ALGORITHMS

DIRECTORY = "Packages/"
PACKAGES, POINTS = "/api/v1/packages", "/api/v1/distribution-points"
EXTENSIONS = (".pkg", ".mpkg", ".dmg", ".zip")
ANSWER_BYTES_MAX = 16 << 20
TIMEOUT_S = 60.0
PAGE = 100
PAGES_MAX = 100
"""Of what a filter finds: it should be one record, but an asterisk in a name stands for anything."""
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

VERIFIED_BY: Mapping[str, str] = {"sha512": "SHA_512", "md5": "MD5"}
"""Algorithm to ``hashType``, the better one first: the hash that clients compare with what they downloaded is ``hashValue``."""
FIELDS: Mapping[str, str] = {"md5": "md5", "sha3_512": "sha3512"}
"""Algorithm to the field that has its hash whatever the type is, beside ``sha256``."""

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


def known(share: str, asked: Iterable[str]) -> set[str]:
    """Of the algorithms that a share asks for, those that nodes of this version compute. InputError unless there is one with which Jamf's clients verify a package."""
    algorithms = set(ALGORITHMS).intersection(asked)
    if not VERIFIED_BY.keys() & algorithms:
        raise InputError(
            f"Jamf Pro has packages verified by SHA-512 or MD5, and {share} asks for neither",
            hint=f"replicad share set {share} --checksums {','.join(ALGORITHMS)}",
        )
    return algorithms


def package_step(existing: Mapping[str, Any] | None, *, file_name: str, sha256: str, checksums: Mapping[str, str]) -> Step:
    """The record of a package: a new one, or the one that stands there with the hashes of these bytes. ``checksums``: algorithm to hexadecimal digest, one of VERIFIED_BY among them."""
    verified_by = next(algorithm for algorithm in VERIFIED_BY if algorithm in checksums)
    wanted = {"sha256": sha256, "hashType": VERIFIED_BY[verified_by], "hashValue": checksums[verified_by]}
    wanted |= {field: checksums[algorithm] for algorithm, field in FIELDS.items() if algorithm in checksums}
    if existing is None:
        return Step("package", file_name, "create", body={**NEW_PACKAGE, "packageName": file_name, "fileName": file_name, **wanted})
    stale = set() if existing.get("sha256") == sha256 else set(FIELDS.values()) - wanted.keys()
    kept = {field: value for field, value in existing.items() if field not in stale}
    return _step("package", file_name, existing, wanted, {**kept, **wanted})


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
    return _step("distribution point", name, existing, wanted, wanted)


def _step(kind: Kind, name: str, existing: Mapping[str, Any], wanted: Mapping[str, Any], body: Mapping[str, Any]) -> Step:
    if all(existing.get(field) == value for field, value in wanted.items()):
        return Step(kind, name, "unchanged", str(existing["id"]))
    return Step(kind, name, "update", str(existing["id"]), body)


def file_names(paths: Iterable[str]) -> dict[str, str]:
    """File name to path of what Jamf Pro can take: files directly below ``Packages/`` with one of its extensions."""
    below = (path for path in paths if path.startswith(DIRECTORY) and "/" not in path[len(DIRECTORY) :])
    return {path[len(DIRECTORY) :]: path for path in below if path.lower().endswith(EXTENSIONS)}


class JamfPro:
    """A session of an API client with a Jamf Pro server, one request at a time. ``url`` is https; http only for a loopback address. A token may live for a minute only: it is replaced when it is refused."""

    def __init__(self, url: str, client_id: str, secret: str) -> None:
        parts = urlsplit(url)
        if not parts.hostname or parts.scheme not in {"https", "http"} or (parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "localhost"}):
            raise InputError(f"--server {url!r}: write https://HOST[:PORT]")
        self._url = parts
        self._token = ""
        self._credentials = {"client_id": client_id, "client_secret": secret}

    def log_in(self) -> None:
        """NotAllowedError if this is no API client. The newer of the two addresses first."""
        form = urlencode({"grant_type": "client_credentials", **self._credentials}).encode()
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
        return self._find(PACKAGES, "fileName", file_name)

    def point(self, name: str) -> dict[str, Any] | None:
        """The distribution point of that name."""
        return self._find(POINTS, "name", name)

    def apply(self, step: Step) -> None:
        """Write what the step says."""
        if step.body is None:
            return
        path, body = (PACKAGES if step.kind == "package" else POINTS), json.dumps(step.body).encode()
        if step.action == "create":
            self._ask("POST", path, body)
        elif step.kind == "package":
            self._ask("PUT", f"{path}/{step.id}", body)
        else:
            self._ask("PATCH", f"{path}/{step.id}", body, content_type="application/merge-patch+json")

    def _find(self, path: str, field: str, value: str) -> dict[str, Any] | None:
        """By an RSQL filter; compared again, because a filter may be looser than it looks. Then read by its id, because a list may say less of it."""
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        for page in range(PAGES_MAX):
            query = urlencode({"filter": f'{field}=="{quoted}"', "page": page, "page-size": PAGE, "sort": "id:asc"})
            answer = self._ask("GET", f"{path}?{query}", None)
            results: Sequence[Any] = answer.get("results", []) if isinstance(answer, dict) else []
            for found in results:
                if isinstance(found, dict) and found.get(field) == value and "id" in found:
                    whole = self._ask("GET", f"{path}/{quote(str(found['id']), safe='')}", None)
                    return {**whole, "id": found["id"]} if isinstance(whole, dict) else None
            if len(results) < PAGE:
                break
        return None

    def _ask(self, method: str, path: str, body: bytes | None, *, content_type: str = "application/json") -> Any:
        status, answer = self._send(method, path, body, content_type)
        if status == HTTPStatus.UNAUTHORIZED:
            self.log_in()
            status, answer = self._send(method, path, body, content_type)
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
            reason = (getattr(error, "strerror", None) or str(error) or "no answer").lower()
            raise UnreachableError(f"Jamf Pro at {self._url.netloc} cannot be asked: {reason}") from None
        try:
            return response.status, json.loads(encoded) if encoded else None
        except ValueError:
            return response.status, None
