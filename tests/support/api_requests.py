"""Requests made from the API's own description, good and bad ones, and what every answer must be: no failure of the server, a status that the description has, a body that fits its schema."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import hypothesis
import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
TIMEOUT_S = 60.0
CHECKING = hypothesis.settings(
    deadline=None,
    database=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
    derandomize=False,
    report_multiple_bugs=False,
)


@dataclass(frozen=True)
class Api:
    """A live API. ``document`` is what it must keep to; ``names`` are places of paths that exist, such as a share."""

    url: str
    document: Mapping[str, Any]
    names: Mapping[str, str]

    def ask(self, method: str, path: str, token: str, body: dict[str, Any] | bytes | None = None) -> Any:
        """One request that must go well."""
        content = {"data": body} if isinstance(body, bytes) else {"json": body}
        response = requests.request(method, self.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S, **content)  # type: ignore[arg-type]
        assert response.status_code == 200, response.text
        return response.json()

    def ask_everything(
        self, tokens: Mapping[str, str], *, examples: int, seed: int, besides: Collection[tuple[str, str]] = ()
    ) -> dict[tuple[str, str], set[int]]:
        """So many good and so many bad requests to every operation, each by everybody of ``tokens`` in turn but for the pairs (operation, who) of ``besides``; the statuses of the answers to each pair.

        Fails with the request that was answered wrongly.
        """
        seen: dict[tuple[str, str], set[int]] = {}
        settings = hypothesis.settings(CHECKING, max_examples=examples)
        with requests.Session() as session:
            session.trust_env = False
            for label, cases in self._strategies():
                asked = {who: token for who, token in tokens.items() if (label, who) not in besides}
                statuses = {who: seen.setdefault((label, who), set()) for who in asked}
                self._ask_all(session, asked, cases, statuses, settings=settings, seed=seed)
        return seen

    def _ask_all(self, session: requests.Session, tokens: Mapping[str, str], cases: Any, statuses: Mapping[str, set[int]], *, settings: Any, seed: int) -> None:
        @hypothesis.seed(seed)
        @settings
        @hypothesis.given(case=cases)
        def ask(case: schemathesis.Case) -> None:
            for who, token in tokens.items():
                case.headers["Authorization"] = f"Bearer {token}"
                response = case.call(self.url, session=session, timeout=TIMEOUT_S)
                case.validate_response(response, checks=CHECKS)
                assert response.headers["x-request-id"]
                statuses[who].add(response.status_code)

        ask()

    def _strategies(self) -> Iterator[tuple[str, Any]]:
        """Without ``security``: who asks is not left to chance."""
        for found in schemathesis.openapi.from_dict({key: value for key, value in self.document.items() if key != "security"}).get_all_operations():
            operation = found.ok()
            places = {one.name: self.names[one.name] for one in operation.path_parameters if one.name in self.names}
            yield operation.label, operation.as_strategy(path_parameters=places or None)
            if list(operation.query) or any(one.media_type == "application/json" for one in operation.body):
                yield operation.label, operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
