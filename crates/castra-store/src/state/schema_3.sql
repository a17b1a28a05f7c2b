-- Agents behind the gate (A2A): the card that was accepted, and one that was seen since and was not.
CREATE TABLE peers (
    name        TEXT PRIMARY KEY,
    digest      BLOB NOT NULL,      -- SHA-256 of the card in canonical form
    card        TEXT NOT NULL,
    pinned      INTEGER NOT NULL,
    seen_digest BLOB,
    seen_card   TEXT,
    seen        INTEGER
) STRICT;

-- Whose a peer's task or conversation is: the agent that was given it first.
CREATE TABLE peer_things (
    peer    TEXT NOT NULL,
    kind    TEXT NOT NULL,          -- 'task' or 'context'
    id      TEXT NOT NULL,
    agent   TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (peer, kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX peer_things_of_agent ON peer_things (agent, created);
