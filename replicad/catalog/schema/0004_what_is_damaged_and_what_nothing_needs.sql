-- One row is a content that was held until its copy on this disk was found to be wrong or gone, and that is not held again since; detail says what was wrong, for people. Written by:
-- keeping.damage; removed by contents.hold and keeping.forget.
CREATE TABLE damaged (
    content BLOB PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    found_ms INTEGER NOT NULL,
    detail TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row is a content on this disk that neither a live entry in a carried stage nor a kept older version names; since_ms is when that was noticed first. Written by: keeping.note_unneeded;
-- removed by contents.hold and keeping.forget.
CREATE TABLE unneeded (
    content BLOB PRIMARY KEY,
    since_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
