"""From one schema to the next: all of it or nothing, with a copy of the old one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from replicad.catalog.migrations import APPLICATION_ID, migrate, scripts
from replicad.errors import ConfigurationError

STEPS = [
    "CREATE TABLE one (a INTEGER) STRICT; INSERT INTO one VALUES (1);",
    "ALTER TABLE one ADD COLUMN b TEXT; UPDATE one SET b = 'new';",
    "CREATE TABLE three (c INTEGER) STRICT;",
]


def migrated(path: Path, steps: list[str]) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        migrate(connection, path, steps)
        version = connection.execute("PRAGMA user_version").fetchone()
        application = connection.execute("PRAGMA application_id").fetchone()
        return [version, application, *connection.execute("SELECT * FROM one")]
    finally:
        connection.close()


def test_from_nothing_without_a_backup(tmp_path: Path) -> None:
    assert migrated(tmp_path / "a.sqlite", STEPS[:1]) == [(1,), (APPLICATION_ID,), (1,)]
    assert [file.name for file in tmp_path.iterdir()] == ["a.sqlite"]


def test_step_by_step_with_a_backup_of_each_old_version(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    migrated(path, STEPS[:1])
    assert migrated(path, STEPS) == [(3,), (APPLICATION_ID,), (1, "new")]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.sqlite", "a.sqlite.v1.backup"]
    assert migrated(tmp_path / "a.sqlite.v1.backup", STEPS[:1]) == [(1,), (APPLICATION_ID,), (1,)]
    assert (tmp_path / "a.sqlite.v1.backup").stat().st_mode & 0o777 == 0o600


def test_nothing_to_do_changes_nothing(tmp_path: Path) -> None:
    migrated(tmp_path / "a.sqlite", STEPS)
    before = (tmp_path / "a.sqlite").read_bytes()
    migrated(tmp_path / "a.sqlite", STEPS)
    assert (tmp_path / "a.sqlite").read_bytes() == before


def test_a_step_that_fails_leaves_the_old_version_and_can_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    migrated(path, STEPS[:1])
    with pytest.raises(sqlite3.Error):
        migrated(path, [STEPS[0], STEPS[1] + " SELECT * FROM nowhere;"])
    assert migrated(path, STEPS[:1]) == [(1,), (APPLICATION_ID,), (1,)]
    assert migrated(path, STEPS) == [(3,), (APPLICATION_ID,), (1, "new")]


def test_a_step_and_its_number_are_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    migrated(path, STEPS[:1])
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.set_authorizer(
            lambda action, name, value, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_PRAGMA and name == "user_version" and value else sqlite3.SQLITE_OK
        )
        with pytest.raises(sqlite3.DatabaseError):
            migrate(connection, path, STEPS)
        connection.set_authorizer(None)
        assert connection.execute("SELECT * FROM one").fetchall() == [(1,)]
    finally:
        connection.close()


def test_a_newer_one_is_left_alone(tmp_path: Path) -> None:
    migrated(tmp_path / "a.sqlite", STEPS)
    with pytest.raises(ConfigurationError, match="has schema 3, this program knows up to 2"):
        migrated(tmp_path / "a.sqlite", STEPS[:2])


def test_the_files_are_numbered_without_gaps_and_carry_their_reasons() -> None:
    directory = Path(__file__).parents[2] / "replicad" / "catalog" / "schema"
    names = sorted(file.name for file in directory.iterdir())
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert len(scripts()) == len(names)
    for text in scripts():
        before = [part.rsplit("\n\n", 1)[-1] for part in text.split("CREATE TABLE")[:-1]]
        assert all(prose.lstrip().startswith("--") for prose in before)


def test_what_was_wanted_before_knows_whose_it_is(tmp_path: Path) -> None:
    before = [*scripts()[:9]]
    before[-1] += """
        INSERT INTO run VALUES (7, x'0a', 's', 1, 1, 1, x'00', 5, NULL, NULL);
        INSERT INTO record VALUES (3, x'01', 7, 1, 5, 'entry', x'', x'');
        INSERT INTO wanted VALUES (3, 's', 5, x'02', x'03', 1, 1, 1);
    """
    connection = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    try:
        migrate(connection, tmp_path / "a.sqlite", before)
        migrate(connection, tmp_path / "a.sqlite", scripts())
        assert connection.execute("SELECT record, origin, hlc FROM wanted").fetchall() == [(3, b"\x0a", 5)]
        assert connection.execute("SELECT amount FROM tally WHERE kind = 'wanted'").fetchall() == [(1,)]
    finally:
        connection.close()
