-- The audit reads the records of all chains in order of (hlc, id), page by page.
CREATE INDEX record_time ON record (hlc, id);
