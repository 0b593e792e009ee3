-- What algos keep between incarnations, and the paper venue's own book.

CREATE TABLE algo_snapshots (
    algo text PRIMARY KEY REFERENCES algos (id) ON DELETE CASCADE,
    epoch bigint NOT NULL,
    state bytea NOT NULL,
    saved_at bigint NOT NULL
);

CREATE TABLE algo_log (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    algo text NOT NULL REFERENCES algos (id) ON DELETE CASCADE,
    epoch bigint NOT NULL,
    at bigint NOT NULL,
    level text NOT NULL,
    text text NOT NULL
);
CREATE INDEX algo_log_of_algo ON algo_log (algo, number);

CREATE TABLE paper_cash (
    account text PRIMARY KEY,
    cash numeric NOT NULL,
    currency text NOT NULL
);

CREATE TABLE paper_orders (
    account text NOT NULL,
    broker_order_id text NOT NULL,
    tag text NOT NULL,
    instrument text NOT NULL,
    side text NOT NULL,
    type text NOT NULL,
    time_in_force text NOT NULL,
    quantity numeric NOT NULL,
    filled_quantity numeric NOT NULL,
    state text NOT NULL,
    at bigint NOT NULL,
    limit_price numeric,
    stop_price numeric,
    average_price numeric NOT NULL,
    triggered boolean NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (account, broker_order_id)
) WITH (fillfactor = 70);
CREATE INDEX paper_orders_open ON paper_orders (account)
    WHERE state IN ('pending', 'submitted', 'partially_filled', 'unknown');
CREATE INDEX paper_orders_by_time ON paper_orders (account, at);

CREATE TABLE paper_fills (
    account text NOT NULL,
    execution_id text NOT NULL,
    broker_order_id text NOT NULL,
    tag text NOT NULL,
    instrument text NOT NULL,
    side text NOT NULL,
    quantity numeric NOT NULL,
    price numeric NOT NULL,
    at bigint NOT NULL,
    fee numeric NOT NULL,
    fee_currency text NOT NULL,
    PRIMARY KEY (account, execution_id)
);
CREATE INDEX paper_fills_by_time ON paper_fills (account, at);

CREATE TABLE paper_positions (
    account text NOT NULL,
    instrument text NOT NULL,
    quantity numeric NOT NULL,
    average_price numeric NOT NULL,
    PRIMARY KEY (account, instrument)
) WITH (fillfactor = 50);

CREATE FUNCTION paper_save(
    p_account text, p_epoch bigint, p_orders json, p_fills json, p_positions json, p_cash numeric, p_currency text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_fence('connection/' || p_account, p_epoch);
    IF p_orders IS NOT NULL THEN
        INSERT INTO paper_orders
        SELECT
            p_account, broker_order_id, tag, instrument, side, type, time_in_force, quantity, filled_quantity, state,
            at, limit_price, stop_price, coalesce(average_price, 0), coalesce(triggered, false),
            coalesce(reason, '')
        FROM json_to_recordset(p_orders) AS o(
            broker_order_id text, tag text, instrument text, side text, type text, time_in_force text,
            quantity numeric, filled_quantity numeric, state text, at bigint, limit_price numeric,
            stop_price numeric, average_price numeric, triggered boolean, reason text)
        ON CONFLICT (account, broker_order_id) DO UPDATE SET
            quantity = excluded.quantity, filled_quantity = excluded.filled_quantity, state = excluded.state,
            at = excluded.at, limit_price = excluded.limit_price, stop_price = excluded.stop_price,
            average_price = excluded.average_price, triggered = excluded.triggered, reason = excluded.reason;
    END IF;
    IF p_fills IS NOT NULL THEN
        INSERT INTO paper_fills
        SELECT
            p_account, fill ->> 'execution_id', broker_order_id, tag, instrument, side,
            (fill ->> 'quantity')::numeric, (fill ->> 'price')::numeric, (fill ->> 'at')::bigint,
            coalesce((fill ->> 'fee')::numeric, 0), coalesce(fill ->> 'fee_currency', '')
        FROM json_to_recordset(p_fills) AS f(
            broker_order_id text, tag text, instrument text, side text, fill json)
        ON CONFLICT (account, execution_id) DO NOTHING;
    END IF;
    IF p_positions IS NOT NULL THEN
        INSERT INTO paper_positions
        SELECT p_account, instrument, quantity, coalesce(average_price, 0)
        FROM json_to_recordset(p_positions) AS p(instrument text, quantity numeric, average_price numeric)
        ON CONFLICT (account, instrument) DO UPDATE SET
            quantity = excluded.quantity, average_price = excluded.average_price;
    END IF;
    INSERT INTO paper_cash VALUES (p_account, p_cash, p_currency)
    ON CONFLICT (account) DO UPDATE SET cash = excluded.cash, currency = excluded.currency
    WHERE paper_cash.cash <> excluded.cash OR paper_cash.currency <> excluded.currency;
END
$$;
