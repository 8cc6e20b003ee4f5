-- entry.source: of a promotion the stage it takes its content from (records of that stage are the only others it may supersede), else NULL.
ALTER TABLE entry ADD COLUMN source TEXT;

-- One row is a content on which a takedown stands, as of the rows of wanted: it is not wanted and not available, whether it is held or not. Written by: supply.take_down, when records of the
-- network's own chains say something else than before.
CREATE TABLE taken_down (
    content BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;
