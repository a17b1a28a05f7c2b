-- Which versions of a model route serve, with the history of it. The newest row of a route counts.
INSERT INTO counters VALUES ('models', 1);

CREATE TABLE promotions (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    route  TEXT NOT NULL,
    time   INTEGER NOT NULL,
    kind   TEXT NOT NULL,                        -- promote or rollback
    shares TEXT,                                 -- JSON array of shares; NULL: as the configuration says
    before INTEGER REFERENCES promotions (id)    -- what a rollback leads to; NULL: as the configuration says
) STRICT;
CREATE INDEX promotions_of_route ON promotions (route, id);
