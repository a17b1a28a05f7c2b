-- What people were asked, and what they said. A question is about exactly one action of one agent.
INSERT INTO counters VALUES ('approvals', 1);

CREATE TABLE approvals (
    id          TEXT PRIMARY KEY,
    digest      BLOB NOT NULL,                -- of agent, run, operation, resource and canonical arguments
    agent       TEXT NOT NULL,
    run         TEXT NOT NULL,                -- '' where the agent named none
    operation   TEXT NOT NULL,
    resource    TEXT NOT NULL,
    injected    INTEGER NOT NULL,             -- whether a value was seen only in untrusted text
    shown       BLOB NOT NULL,                -- what a person sees, sealed under the agent's data key
    state       TEXT NOT NULL,                -- pending, approved, denied or used
    asked_at    INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,             -- of the question; of the answer, once there is one
    answered_by TEXT,
    answered_at INTEGER,
    reason      TEXT,
    recorded    INTEGER NOT NULL DEFAULT 0    -- whether the answer stands in the log
) STRICT;
CREATE INDEX approvals_of_digest ON approvals (digest);
CREATE INDEX approvals_of_run ON approvals (agent, run);
