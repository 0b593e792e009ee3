-- Profit (and of accounts equity) as time went on, of the cluster, users, accounts and algos: what charts draw.
-- `grain`: 2 the first sample of its hour, 1 of its five minutes, 0 any other; the finer, the sooner it goes.
CREATE TABLE equity (
    scope text NOT NULL,
    at bigint NOT NULL,
    pnl numeric NOT NULL,
    equity numeric,
    grain smallint NOT NULL,
    PRIMARY KEY (scope, at)
);
CREATE INDEX equity_fading ON equity (grain, at);

CREATE FUNCTION save_equity(p_owner text, p_epoch bigint, p_samples json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_fence(p_owner, p_epoch);
    INSERT INTO equity
    SELECT s.* FROM json_to_recordset(p_samples) AS s(
        scope text, at bigint, pnl numeric, equity numeric, grain smallint)
    ON CONFLICT (scope, at) DO NOTHING;
END
$$;
