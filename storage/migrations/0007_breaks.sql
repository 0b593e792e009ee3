-- Breaks that people settle, cash by our own reckoning, and the report of each day.

ALTER TABLE breaks
    ADD COLUMN client_order_id text,
    ADD COLUMN settlement text,
    ADD COLUMN resolved_by text NOT NULL DEFAULT '',
    ADD COLUMN tolerated boolean NOT NULL DEFAULT false,
    ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY;
UPDATE breaks SET settlement = 'agreed' WHERE resolved_at <> 0;
CREATE INDEX breaks_tolerated ON breaks (account) WHERE tolerated;
CREATE INDEX breaks_by_time ON breaks (opened_at, number);

-- What the broker said once; every execution with a higher number than ``fills_before`` counts on top.
CREATE TABLE cash_books (
    account text PRIMARY KEY,
    currency text NOT NULL,
    amount numeric NOT NULL,
    based_at bigint NOT NULL,
    "off" text NOT NULL,
    fills_before bigint NOT NULL
);
-- BRIN: numbers lie in the order of the table, and it costs an insert next to nothing.
CREATE INDEX fills_by_number ON fills USING brin (number) WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX fills_adjusting ON fills (account) WHERE execution_id LIKE 'adjustment:%';

-- The part of a session's batch that is seldom there: in the same transaction as `journal_append`, after it, so that
-- the batch's executions are among those before the cash.  Writing it again writes the same.
CREATE FUNCTION journal_settle(p_owner text, p_epoch bigint, p_breaks json, p_cash json) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_fence(p_owner, p_epoch);
    IF p_breaks IS NOT NULL THEN
        INSERT INTO breaks (
            id, account, instrument, kind, ours, theirs, opened_at, resolved_at, resolution, client_order_id,
            settlement, resolved_by, tolerated)
        SELECT b.* FROM json_to_recordset(p_breaks) AS b(
            id text, account text, instrument text, kind text, ours text, theirs text, opened_at bigint,
            resolved_at bigint, resolution text, client_order_id text, settlement text, resolved_by text,
            tolerated boolean)
        ON CONFLICT (id) DO UPDATE SET
            ours = excluded.ours, theirs = excluded.theirs, resolved_at = excluded.resolved_at,
            resolution = excluded.resolution, settlement = excluded.settlement, resolved_by = excluded.resolved_by,
            tolerated = excluded.tolerated;
    END IF;
    IF p_cash IS NOT NULL THEN
        INSERT INTO cash_books (account, currency, amount, based_at, "off", fills_before)
        SELECT
            c.account, c.currency, c.amount, c.based_at, c."off",
            -- Executions journaled later get higher numbers.
            (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM fills_number_seq)
        FROM json_to_recordset(p_cash) AS c(
            account text, currency text, amount numeric, based_at bigint, "off" text)
        ON CONFLICT (account) DO UPDATE SET
            currency = excluded.currency, amount = excluded.amount, based_at = excluded.based_at,
            "off" = excluded."off", fills_before = excluded.fills_before;
    END IF;
END
$$;

CREATE TABLE reconciliations (
    account text NOT NULL,
    day date NOT NULL,
    starts_at bigint NOT NULL,
    ends_at bigint NOT NULL,
    made_at bigint NOT NULL,
    report json NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (account, day)
);
CREATE INDEX reconciliations_by_day ON reconciliations (ends_at DESC, number DESC);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON reconciliations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
