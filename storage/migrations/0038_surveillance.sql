-- How far the orders of each account have been watched, and what was learnt of it: one row, written together with the
-- alerts that came of it, so that after a restart none is missed and none told twice.
CREATE TABLE surveillance (
    account text PRIMARY KEY,
    -- Of the last order event that was taken.
    number bigint NOT NULL,
    -- What happened before that is learnt from and not told.
    since bigint NOT NULL,
    state jsonb NOT NULL
) WITH (fillfactor = 50);
