-- One row is one API token that was not revoked, expired or not. hash is the SHA-256 of its text, which is kept nowhere. shares is a JSON list, NULL for all; path is a collision key, empty for
-- everywhere. used_ms is when it was last used, to the minute. Written by: tokens. Local to this node: moving to another network leaves it alone.
CREATE TABLE token (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    shares TEXT,
    path TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    used_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX token_hash ON token (hash);
CREATE UNIQUE INDEX token_name ON token (name);

-- One row is one action of a person or program through the admin door: a write that was asked for, whatever became of it, or a refused login. hash is the SHA-256 of the row before's hash and
-- this row's other columns, so that a row that is changed, missing or added shows. Rows are only ever appended; the oldest go when there are too many. Written by: actions. Local to this node.
CREATE TABLE action (
    seq INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    caller TEXT NOT NULL,
    origin TEXT NOT NULL,
    request TEXT NOT NULL,
    method TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL,
    status INTEGER NOT NULL,
    code TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;

-- One row, always: where the chain of actions begins (the hash before its oldest row, and that row's seq) and ends, as of the last append. Written by: actions, in the same transaction.
CREATE TABLE action_chain (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    first_seq INTEGER NOT NULL,
    first_before BLOB NOT NULL,
    last_seq INTEGER NOT NULL,
    last_hash BLOB NOT NULL
) STRICT;
INSERT INTO action_chain VALUES (1, 1, zeroblob(32), 0, zeroblob(32));
