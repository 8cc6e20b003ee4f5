"""The API keeps to its published description: a live daemon, asked everything, as every role."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from replicad.model.callers import AccessRole
from replicad.server.admin.application import document
from support.api_requests import Api
from support.network import Network

pytestmark = pytest.mark.daemons

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
EXAMPLES = int(os.environ.get("REPLICAD_API_EXAMPLES", "0"))
"""More of them, from this run's seed, in ``make soak``; otherwise the same few each time."""
FEW = 2
LIMITED = "limited"


def test_the_published_description_is_that_of_the_program() -> None:
    assert DOCUMENT.read_bytes() == bytes(document()), "the API has changed, and its description with it: make openapi"
    assert [name for name in json.loads(DOCUMENT.read_bytes())["components"]["schemas"] if "." in name] == [], "two types of one name: rename one of them"


def test_no_answer_breaks_the_description(network: Network, seed: int) -> None:
    ams = network.found("ams1")
    root = (ams.data / "admin.token").read_text().strip()
    api = Api(f"http://127.0.0.1:{ams.admin_port}/api/v1", json.loads(DOCUMENT.read_bytes()), {"share": "munki", "path": "apps/a.pkg"})
    api.ask("POST", "/shares", root, {"name": "munki"})
    api.ask("PUT", "/shares/munki/files/apps/a.pkg", root, b"a")
    tokens = {role.value: api.ask("POST", "/tokens", root, {"role": role, "name": f"the-{role}"})["secret"] for role in AccessRole}
    tokens[LIMITED] = api.ask("POST", "/tokens", root, {"role": "admin", "shares": ["munki"], "path": "apps"})["secret"]
    besides = {("POST /node/rotate", "admin")}  # that has the daemon built anew
    seen = api.ask_everything(tokens, examples=EXAMPLES or FEW, seed=seed if EXAMPLES else 0, besides=besides)
    operations = {f"{method.upper()} {path}": one for path, methods in api.document["paths"].items() for method, one in methods.items()}
    assert seen.keys() == {(label, who) for label in operations for who in tokens} - besides
    assert all(seen.values())
    for (label, who), statuses in seen.items():
        if who != LIMITED:
            least = AccessRole(operations[label]["x-role"])
            assert (statuses == {403}) == (not AccessRole(who).includes(least)), (label, who, statuses)
        elif not operations[label]["x-scoped"] and "{share}" not in label:
            assert statuses <= {400, 403}, (label, statuses)
    assert api.ask("GET", "/status", root)["node"]["state"] == "ok"
