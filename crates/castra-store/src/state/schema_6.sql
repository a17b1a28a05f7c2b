-- What flow control knows of runs, so that a restart does not make an agent forget what it has read.
CREATE TABLE runs (
    agent TEXT NOT NULL,
    run   TEXT NOT NULL,            -- names that begin with a space are the gate's own
    began INTEGER NOT NULL,
    used  INTEGER NOT NULL,
    state BLOB,                     -- sealed; NULL: it has ended, or was never written
    held  INTEGER NOT NULL,         -- a gate knows more than was written: after a crash the run is lost
    PRIMARY KEY (agent, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_of_agent ON runs (agent, used);

-- Hashes of what runs wrote after they had read what strangers may have written.
CREATE TABLE marks (
    mark INTEGER PRIMARY KEY,
    time INTEGER NOT NULL
) STRICT;
