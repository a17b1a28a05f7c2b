-- Times are microseconds since 1970. Digests and hashes are 32 bytes.

CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
INSERT INTO counters VALUES ('credentials', 1);

CREATE TABLE settings (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE agents (
    name    TEXT PRIMARY KEY,
    groups  TEXT NOT NULL,          -- JSON array of names
    created INTEGER NOT NULL,
    revoked INTEGER
) STRICT;

CREATE TABLE people (
    id      TEXT PRIMARY KEY,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    hash    BLOB PRIMARY KEY,       -- SHA-256 of the text
    id      TEXT NOT NULL,          -- first 12 hex digits of it
    agent   TEXT REFERENCES agents (name),
    person  TEXT REFERENCES people (id),
    created INTEGER NOT NULL,
    expires INTEGER,
    revoked INTEGER,
    CHECK ((agent IS NULL) <> (person IS NULL))
) STRICT;
CREATE INDEX tokens_of_agent ON tokens (agent);

CREATE TABLE certificates (
    serial      TEXT PRIMARY KEY,   -- hex
    fingerprint BLOB NOT NULL UNIQUE,
    agent       TEXT NOT NULL REFERENCES agents (name),
    created     INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    revoked     INTEGER
) STRICT;
CREATE INDEX certificates_of_agent ON certificates (agent);

CREATE TABLE enrolments (
    hash     BLOB PRIMARY KEY,
    person   TEXT NOT NULL REFERENCES people (id),
    created  INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    redeemed INTEGER
) STRICT;

CREATE TABLE data_keys (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL UNIQUE,
    wrapped BLOB NOT NULL,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE tools (
    server     TEXT NOT NULL,
    name       TEXT NOT NULL,
    definition TEXT NOT NULL,       -- JSON as the server sent it
    digest     BLOB NOT NULL,       -- SHA-256 of it
    effect     TEXT NOT NULL,
    external   INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    changed    INTEGER NOT NULL,    -- when it was last seen to differ from before
    PRIMARY KEY (server, name)
) STRICT;
