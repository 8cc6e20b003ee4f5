"""The example and what `init` writes say exactly what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from replicad import config
from replicad.config.keys import REQUIRED
from replicad.config.sections import KEYS
from replicad.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


def test_the_shipped_example_is_the_one_of_the_code() -> None:
    assert EXAMPLE.read_text() == config.example(), "write it again: replicad config example >config.example.toml"


def test_the_example_documents_every_key_and_its_lines_are_the_defaults(tmp_path: Path) -> None:
    uncommented = re.sub(r"(?m)^# (\w+ = )", r"\1", config.example())
    tables = tomllib.loads(uncommented)
    assert [f"{section}.{name}" for section, table in tables.items() for name in table] == [key.path for key in KEYS]
    path = tmp_path / "replicad.toml"
    path.write_text(uncommented)
    found = config.load(path, {})
    assert {row.key: row.value for row in found.rows() if not row.key.startswith("node.name")} == {
        key.path: key.default for key in KEYS if key.default is not REQUIRED
    }


def test_the_example_as_it_is_can_be_used() -> None:
    assert config.load(EXAMPLE, {}).node.name == "ams1"


def test_init_writes_only_what_was_said_and_it_reads_back(tmp_path: Path) -> None:
    text = config.initial(
        {"node.name": 'the "first"', "node.data": "/srv/a b", "downloads.listen": "127.0.0.1:8481", "peers.connect": "", "admin.listen": "off"}
    )
    path = tmp_path / "replicad.toml"
    path.write_text(text)
    found = config.load(path, {})
    assert (found.node.name, str(found.node.data), str(found.downloads.listen), found.admin.listen) == ('the "first"', "/srv/a b", "127.0.0.1:8481", None)
    assert sorted(key for key, origin in found.origins.items() if origin != "default") == ["admin.listen", "downloads.listen", "node.data", "node.name"]


def test_init_names_every_bad_value() -> None:
    with pytest.raises(InputError) as caught:
        config.initial({"node.name": "x" * 64, "peers.listen": "here"})
    assert [line.split(":")[0] for line in caught.value.message.splitlines()] == ["node.name", "peers.listen"]


def test_loading_the_configuration_costs_no_heavy_imports() -> None:
    heavy = ["aiohttp", "aiosqlite", "sqlite3", "nacl", "cryptography", "uvloop", "asyncio", "prometheus_client", "rich"]
    code = f"import sys, replicad.config; print(*[name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
