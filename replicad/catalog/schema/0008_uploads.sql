-- One row is one resumable upload that was begun: where its file shall be published, how many of its size_bytes are safe on the disk, and their SHA-256. expect is the SHA-256 that was promised of the
-- whole, NULL if none was; stage NULL means the share's last one; metadata is what the client said when it began, to be given back as it was. published: 1 when it has its name; its content is a blob then. Written by: uploads. Local to this node.
CREATE TABLE upload (
    id TEXT PRIMARY KEY,
    caller TEXT NOT NULL,
    share TEXT NOT NULL,
    path TEXT NOT NULL,
    stage TEXT,
    publisher TEXT NOT NULL,
    urgent INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    expect BLOB,
    safe_bytes INTEGER NOT NULL,
    safe_digest BLOB NOT NULL,
    published INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
