-- One row is one person whom this node itself knows. verifier: Argon2id, in its text form; shares and path as a token's; enabled 0: may not log in. login_ms: when the last session began. totp_secret
-- is the second factor that counts, totp_offered one that was shown and not yet confirmed; totp_step is the last time step of which a code was taken. Written by: users. Local to this node.
CREATE TABLE user (
    name TEXT PRIMARY KEY COLLATE NOCASE,
    verifier TEXT NOT NULL,
    role TEXT NOT NULL,
    shares TEXT,
    path TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    login_ms INTEGER,
    totp_secret BLOB,
    totp_offered BLOB,
    totp_step INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row is one session of a person who logged in. hash is the SHA-256 of its text, which is kept nowhere. What a local user may do stands in user and is NULL here; for others role, shares and path are
-- what the directory said when they logged in. used_ms is when it was last used, to the minute. Written by: sessions, and by users when they end them. Local to this node.
CREATE TABLE session (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL COLLATE NOCASE,
    source TEXT NOT NULL,
    role TEXT,
    shares TEXT,
    path TEXT,
    created_ms INTEGER NOT NULL,
    used_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX session_of ON session (source, name, used_ms);
