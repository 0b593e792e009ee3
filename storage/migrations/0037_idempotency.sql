-- What became of requests that bear a key of the caller's, for a day.  Neither the key nor what was asked is kept, only
-- digests; answers are sealed.  `status` null: under way, or cut off by the end of the process that had it.
CREATE TABLE idempotency (
    id bytea PRIMARY KEY,
    "user" text NOT NULL,
    request bytea NOT NULL,
    -- This very try.
    claim text NOT NULL,
    began_at bigint NOT NULL,
    -- Renewed by the process that has it, for as long as it lives.
    beat_at bigint NOT NULL,
    status integer,
    answer bytea
) WITH (fillfactor = 70);
CREATE INDEX idempotency_by_age ON idempotency (began_at);
