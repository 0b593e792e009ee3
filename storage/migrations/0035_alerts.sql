-- What somebody should look at.  The same thing told again while it is open is counted, not told twice.
CREATE TABLE alerts (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    kind text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    -- Whom it is about; '' = the deck.
    "user" text NOT NULL,
    account text,
    algo text,
    subject text NOT NULL,
    text text NOT NULL,
    -- First and last time, and how often.
    at bigint NOT NULL,
    last_at bigint NOT NULL,
    times bigint NOT NULL DEFAULT 1,
    acknowledged_at bigint NOT NULL DEFAULT 0,
    acknowledged_by text NOT NULL DEFAULT '',
    -- Rises with every change of any alert, in the order in which changes become visible.
    change bigint NOT NULL
);
CREATE UNIQUE INDEX alerts_open ON alerts (kind, "user", account, algo, subject) NULLS NOT DISTINCT
    WHERE acknowledged_at = 0;
CREATE INDEX alerts_by_time ON alerts (at DESC, number DESC);
CREATE INDEX alerts_by_change ON alerts (change);
CREATE SEQUENCE alert_changes;
