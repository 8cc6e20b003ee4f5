-- The catalog, first version. Every table is STRICT; every identifier is the 32 bytes themselves; times carry their unit in the name. Writers are functions of replicad/catalog; nobody
-- else opens this file. What is computed (entry.counts, .live, .wins, register, carried, wanted, tally) can be computed again from record; nothing else can.

-- One row is one small fact about this catalog or one value kept for a service. Written by: catalog ("network" is the network id as text), Catalog.set_meta (keys "service/...").
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row is one run: consecutive records of one incarnation of one chain (origin, share), as protocol.chains allocates and numbers them. The chain is the tree that parent makes. Loaded
-- into memory at start. Written by: ledger, in the transaction that stores the run's new last record.
CREATE TABLE run (
    run INTEGER PRIMARY KEY,
    origin BLOB NOT NULL,
    share TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    last_id BLOB NOT NULL,
    last_hlc INTEGER NOT NULL,
    parent_run INTEGER,
    parent_seq INTEGER
) STRICT;

CREATE INDEX run_origin ON run (origin);

-- One row is one signed record, exactly as received: (type, payload, run.origin as key, signature) is its envelope, id the hash of what was signed. record numbers grow in order of arrival
-- and mean nothing to anybody else. Never deleted (except by moving to another network). Written by: ledger.
CREATE TABLE record (
    record INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    hlc INTEGER NOT NULL,
    type TEXT NOT NULL,
    payload BLOB NOT NULL,
    signature BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX record_id ON record (id);
CREATE UNIQUE INDEX record_place ON record (run, seq);

-- One row is one register: a name (share, collision key) at one stage. winner is the record number of the live entry that everybody agrees on, NULL when no file lives there; siblings
-- counts the live entries that lost. Written by: registers, whenever a record of the name arrives or changes whether it counts.
CREATE TABLE register (
    register INTEGER PRIMARY KEY,
    share TEXT NOT NULL,
    key TEXT NOT NULL,
    stage TEXT NOT NULL,
    winner INTEGER,
    siblings INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE UNIQUE INDEX register_name ON register (share, key, stage);
-- Listings and collision checks walk over living names only: removed ones pile up over the years.
CREATE INDEX register_live ON register (share, key, stage) WHERE winner IS NOT NULL;

-- One row is one record of type entry or tombstone, taken apart. counts: protocol.trust says that it has effect; live: it counts and nothing that counts supersedes it (protocol.merge);
-- wins: it is its register's winner. A tombstone has neither content nor size, manifest, modification time. Written by: registers.
CREATE TABLE entry (
    record INTEGER PRIMARY KEY,
    register INTEGER NOT NULL,
    share TEXT NOT NULL,
    stage TEXT NOT NULL,
    path TEXT NOT NULL,
    publisher TEXT NOT NULL,
    content BLOB,
    size_bytes INTEGER,
    manifest BLOB,
    modified_s INTEGER,
    counts INTEGER NOT NULL,
    live INTEGER NOT NULL DEFAULT 0,
    wins INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX entry_register ON entry (register, live);
CREATE INDEX entry_content ON entry (content, counts, share, stage, wins) WHERE content IS NOT NULL;

-- One row says that a record (ours by number) supersedes another (by id: it may not have arrived yet). Written by: registers, with the entry.
CREATE TABLE supersedes (
    target BLOB NOT NULL,
    record INTEGER NOT NULL,
    PRIMARY KEY (target, record)
) STRICT, WITHOUT ROWID;

-- One row is a run whose records may have changed whether they count, because the rights of its origin changed: those after seq are still to be looked at. everything: also those that still
-- count as before must be merged again, because the share's rule changed. Written by: ledger with the record that changed the rights; emptied in batches.
CREATE TABLE recount (
    run INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    everything INTEGER NOT NULL
) STRICT;

-- One row is a stage of a share that this node carries, as of the rows of wanted. Written by: supply.carry, when this node's grant or the shares change.
CREATE TABLE carried (
    share TEXT NOT NULL,
    stage TEXT NOT NULL,
    PRIMARY KEY (share, stage)
) STRICT, WITHOUT ROWID;

-- One row is a live entry in a carried stage whose content this node should hold and does not; content, size and manifest are what that entry says. One content may be wanted by several
-- entries (if they name different manifests or sizes, somebody lies, and all are tried): in_share marks one of those in each share and in_all one of all, so that it is counted once. There
-- is no index by content, which would scatter writes over the whole table while a new node fills up: entry_content finds the records. Written by: supply.
CREATE TABLE wanted (
    record INTEGER PRIMARY KEY,
    share TEXT NOT NULL,
    hlc INTEGER NOT NULL,
    content BLOB NOT NULL,
    manifest BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    in_share INTEGER NOT NULL,
    in_all INTEGER NOT NULL
) STRICT;

CREATE INDEX wanted_oldest ON wanted (hlc);
CREATE INDEX wanted_share ON wanted (share, hlc);

-- One row is content on this node's disk, verified as a whole. Written by: contents.hold, hold_under and lose.
CREATE TABLE held (
    content BLOB PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    manifest BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- One row is a chunk list (encoded as model.manifest says) of content that is held or being fetched. Content of one chunk needs none. Written by: contents.
CREATE TABLE manifest (
    content BLOB NOT NULL,
    manifest BLOB NOT NULL,
    encoded BLOB NOT NULL,
    PRIMARY KEY (content, manifest)
) STRICT;

-- One row is content half fetched under one manifest: the chunks set in bitmap are verified and durable in the store's partial file. Written by: contents.save_partials, after fdatasync.
CREATE TABLE partial (
    content BLOB NOT NULL,
    manifest BLOB NOT NULL,
    bitmap BLOB NOT NULL,
    PRIMARY KEY (content, manifest)
) STRICT, WITHOUT ROWID;

-- One row is the newest signed head of one node for one share; key is the envelope's. Written by: peers.save_heads, so that "offline since" survives a restart.
CREATE TABLE head (
    node BLOB NOT NULL,
    share TEXT NOT NULL,
    type TEXT NOT NULL,
    payload BLOB NOT NULL,
    key BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (node, share)
) STRICT, WITHOUT ROWID;

-- One row is an invitation made here: the hash of its secret, what it grants (JSON by services.membership), its end, and the one key that used it. Written by: peers.
CREATE TABLE invite (
    secret_hash BLOB PRIMARY KEY,
    body BLOB NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_by BLOB
) STRICT, WITHOUT ROWID;

-- One row is a request to join without invitation, waiting for an admin (JSON by services.membership). At most 64, the newest. Written by: peers.
CREATE TABLE pending (
    node BLOB PRIMARY KEY,
    body BLOB NOT NULL,
    asked_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row is one offence of a peer: wrong bytes, broken protocol. The newest 100 of a node. Written by: peers.blame.
CREATE TABLE blame (
    blame INTEGER PRIMARY KEY,
    node BLOB NOT NULL,
    offence TEXT NOT NULL,
    detail TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX blame_node ON blame (node, blame);

-- One row is a running total: rows and bytes of a kind ("record", "held", "wanted" = distinct contents, "wanted/SHARE"), or the number of living files at a stage ("stage/prod"). bytes is
-- REAL because what entries claim can add up to more than 63 bits. Written by: the triggers below, so that a total is never wrong and never counted by reading a table.
CREATE TABLE tally (
    kind TEXT PRIMARY KEY,
    amount INTEGER NOT NULL,
    bytes REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER record_in AFTER INSERT ON record BEGIN
    INSERT INTO tally VALUES ('record', 1, length(new.payload) + length(new.signature)) ON CONFLICT DO UPDATE SET amount = amount + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER held_in AFTER INSERT ON held BEGIN
    INSERT INTO tally VALUES ('held', 1, new.size_bytes) ON CONFLICT DO UPDATE SET amount = amount + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER held_out AFTER DELETE ON held BEGIN
    UPDATE tally SET amount = amount - 1, bytes = bytes - old.size_bytes WHERE kind = 'held';
END;

CREATE TRIGGER wanted_share_in AFTER INSERT ON wanted WHEN new.in_share BEGIN
    INSERT INTO tally VALUES ('wanted/' || new.share, 1, new.size_bytes) ON CONFLICT DO UPDATE SET amount = amount + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER wanted_share_instead AFTER UPDATE OF in_share ON wanted WHEN new.in_share AND NOT old.in_share BEGIN
    INSERT INTO tally VALUES ('wanted/' || new.share, 1, new.size_bytes) ON CONFLICT DO UPDATE SET amount = amount + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER wanted_share_out AFTER DELETE ON wanted WHEN old.in_share BEGIN
    UPDATE tally SET amount = amount - 1, bytes = bytes - old.size_bytes WHERE kind = 'wanted/' || old.share;
END;

CREATE TRIGGER wanted_all_in AFTER INSERT ON wanted WHEN new.in_all BEGIN
    INSERT INTO tally VALUES ('wanted', 1, new.size_bytes) ON CONFLICT DO UPDATE SET amount = amount + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER wanted_all_instead AFTER UPDATE OF in_all ON wanted WHEN new.in_all AND NOT old.in_all BEGIN
    INSERT INTO tally VALUES ('wanted', 1, new.size_bytes) ON CONFLICT DO UPDATE SET amount = amount + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER wanted_all_out AFTER DELETE ON wanted WHEN old.in_all BEGIN
    UPDATE tally SET amount = amount - 1, bytes = bytes - old.size_bytes WHERE kind = 'wanted';
END;

CREATE TRIGGER winner_in AFTER UPDATE OF winner ON register WHEN old.winner IS NULL AND new.winner IS NOT NULL BEGIN
    INSERT INTO tally VALUES ('stage/' || new.stage, 1, 0) ON CONFLICT DO UPDATE SET amount = amount + 1;
END;

CREATE TRIGGER winner_out AFTER UPDATE OF winner ON register WHEN old.winner IS NOT NULL AND new.winner IS NULL BEGIN
    UPDATE tally SET amount = amount - 1 WHERE kind = 'stage/' || new.stage;
END;
