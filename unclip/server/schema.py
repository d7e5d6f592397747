"""The tables of a server's database, as the steps that lead to them: a folder written by any earlier version still opens.

Step i makes version i + 1 of version i, and version 0 is an empty file. A step that was ever released stays as it is.
"""

STEPS = (
    """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL, request TEXT NOT NULL,
    state TEXT NOT NULL, created REAL NOT NULL, started REAL, finished REAL, error TEXT, progress REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0);
CREATE INDEX jobs_of_owner ON jobs (owner, seq);
CREATE INDEX jobs_by_state ON jobs (state, seq);
CREATE TABLE images (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    job TEXT, slot INTEGER, settings TEXT NOT NULL, parents TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE slots (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, slot INTEGER NOT NULL,
    image TEXT REFERENCES images (id) ON DELETE SET NULL, PRIMARY KEY (job, slot)) WITHOUT ROWID;
CREATE INDEX slots_by_image ON slots (image);
CREATE TABLE collections (id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE collected (
    collection TEXT NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE, added REAL NOT NULL, PRIMARY KEY (collection, image));
CREATE INDEX collected_by_image ON collected (image);
""",
    # A queue that can be put in another order, pictures that are left out of a job, and a refusal's own words.
    """
ALTER TABLE jobs ADD COLUMN detail TEXT;
ALTER TABLE jobs ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET place = seq;
DROP INDEX jobs_by_state;
CREATE INDEX jobs_by_state ON jobs (state, place);
ALTER TABLE slots ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
""",
)
