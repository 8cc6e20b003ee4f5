-- entry.urgent: 1 if the entry says so: its content goes before others and no limit holds it up.
ALTER TABLE entry ADD COLUMN urgent INTEGER NOT NULL DEFAULT 0;

CREATE INDEX entry_urgent ON entry (content) WHERE urgent = 1;
