-- One row is a checksum of a held content besides the SHA-256 that names it, computed on this node from bytes that had that SHA-256; algorithm is hashlib's name. Written by: checksums; gone with
-- the row of held.
CREATE TABLE checksum (
    content BLOB NOT NULL,
    algorithm TEXT NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (content, algorithm)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER held_out_checksum AFTER DELETE ON held BEGIN
    DELETE FROM checksum WHERE content = old.content;
END;
