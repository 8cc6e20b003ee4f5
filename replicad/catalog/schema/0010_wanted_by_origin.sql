-- wanted.origin: the node whose entry that is. The list of what is wanted is bounded, and one origin must not take all of it.
ALTER TABLE wanted ADD COLUMN origin BLOB NOT NULL DEFAULT x'';

UPDATE wanted SET origin = (SELECT run.origin FROM record JOIN run ON run.run = record.run WHERE record.record = wanted.record);

DROP INDEX wanted_oldest;
CREATE INDEX wanted_origin ON wanted (origin, hlc);
