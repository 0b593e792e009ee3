-- What algos hold, the day's profit of every level of the limit tree, and the day's highest use.

CREATE TABLE algo_positions (
    account text NOT NULL,
    algo text NOT NULL,
    instrument text NOT NULL,
    multiplier numeric NOT NULL,
    quantity numeric NOT NULL,
    average_cost numeric NOT NULL,
    realised numeric NOT NULL,
    fees numeric NOT NULL,
    traded numeric NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (account, algo, instrument)
);

-- What earlier releases journaled: algos' positions are folded again from their fills, oldest first.
DO $$
DECLARE
    f record;
    held record;
    change numeric;
    after numeric;
BEGIN
    FOR f IN
        SELECT fills.*, coalesce(p.multiplier, 1) AS multiplier
        FROM fills LEFT JOIN positions p ON p.account = fills.account AND p.instrument = fills.instrument
        WHERE fills.algo IS NOT NULL ORDER BY fills.number
    LOOP
        INSERT INTO algo_positions
        VALUES (f.account, f.algo, f.instrument, f.multiplier, 0, 0, 0, 0, 0, f.at) ON CONFLICT DO NOTHING;
        SELECT * INTO held FROM algo_positions
        WHERE account = f.account AND algo = f.algo AND instrument = f.instrument;
        change := CASE f.side WHEN 'buy' THEN f.quantity ELSE -f.quantity END;
        after := held.quantity + change;
        UPDATE algo_positions SET
            average_cost = CASE
                WHEN after = 0 THEN 0
                WHEN held.quantity = 0 OR sign(held.quantity) = sign(change)
                    THEN (held.average_cost * abs(held.quantity) + f.price * f.quantity) / abs(after)
                WHEN sign(after) <> sign(held.quantity) THEN f.price
                ELSE held.average_cost END,
            realised = held.realised + CASE
                WHEN held.quantity = 0 OR sign(held.quantity) = sign(change) THEN 0
                ELSE (f.price - held.average_cost) * least(abs(held.quantity), f.quantity)
                    * f.multiplier * sign(held.quantity) END,
            quantity = after,
            fees = held.fees + f.fee,
            traded = held.traded + f.quantity,
            updated_at = greatest(held.updated_at, f.at)
        WHERE account = f.account AND algo = f.algo AND instrument = f.instrument;
    END LOOP;
END
$$;

-- `reached`: the losses that have reached their limit, as JSON by kind.
CREATE TABLE level_days (
    scope text NOT NULL,
    instrument text NOT NULL,
    began_at bigint NOT NULL,
    opening numeric NOT NULL,
    high numeric NOT NULL,
    latest numeric NOT NULL,
    at bigint NOT NULL,
    reached jsonb NOT NULL,
    PRIMARY KEY (scope, instrument)
);

CREATE FUNCTION save_days(p_owner text, p_epoch bigint, p_days json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_fence(p_owner, p_epoch);
    INSERT INTO level_days
    SELECT d.* FROM json_to_recordset(p_days) AS d(
        scope text, instrument text, began_at bigint, opening numeric, high numeric, latest numeric, at bigint,
        reached jsonb)
    ON CONFLICT (scope, instrument) DO UPDATE SET
        began_at = excluded.began_at, opening = excluded.opening, high = excluded.high, latest = excluded.latest,
        at = excluded.at, reached = excluded.reached;
END
$$;

-- The highest of each measure in a day (UTC nanoseconds of its beginning), of every level.
CREATE TABLE risk_maxima (
    day bigint NOT NULL,
    scope text NOT NULL,
    instrument text NOT NULL,
    gross numeric NOT NULL,
    long numeric NOT NULL,
    short numeric NOT NULL,
    money_at_risk numeric NOT NULL,
    loss numeric NOT NULL,
    drawdown numeric NOT NULL,
    open_orders integer NOT NULL,
    sampled_at bigint NOT NULL,
    PRIMARY KEY (day, scope, instrument)
);

CREATE FUNCTION save_maxima(p_epoch bigint, p_maxima json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_fence('risk/main', p_epoch);
    INSERT INTO risk_maxima
    SELECT m.* FROM json_to_recordset(p_maxima) AS m(
        day bigint, scope text, instrument text, gross numeric, long numeric, short numeric, money_at_risk numeric,
        loss numeric, drawdown numeric, open_orders integer, sampled_at bigint)
    ON CONFLICT (day, scope, instrument) DO UPDATE SET
        gross = greatest(risk_maxima.gross, excluded.gross),
        long = greatest(risk_maxima.long, excluded.long),
        short = greatest(risk_maxima.short, excluded.short),
        money_at_risk = greatest(risk_maxima.money_at_risk, excluded.money_at_risk),
        loss = greatest(risk_maxima.loss, excluded.loss),
        drawdown = greatest(risk_maxima.drawdown, excluded.drawdown),
        open_orders = greatest(risk_maxima.open_orders, excluded.open_orders),
        sampled_at = excluded.sampled_at;
END
$$;

-- As in 0004; positions with an algo are those of the algo.
CREATE OR REPLACE FUNCTION journal_append(
    p_owner text, p_epoch bigint, p_batch bigint,
    p_orders json, p_heads json, p_events json, p_positions json, p_breaks json
) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    changed bigint;
BEGIN
    PERFORM check_fence(p_owner, p_epoch);
    INSERT INTO journal_batches VALUES (p_owner, p_epoch, p_batch) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_batch % 4096 = 0 THEN
        DELETE FROM journal_batches WHERE owner = p_owner AND (epoch < p_epoch OR batch_id < p_batch - 4096);
    END IF;
    IF p_orders IS NOT NULL THEN
        INSERT INTO orders (
            account, client_order_id, instrument, side, type, quantity, limit_price, stop_price, time_in_force,
            reduce_only, algo, tag, state, created_at, updated_at, broker_order_id, filled_quantity,
            average_price, reason, cancelling, trail_price, trail_percent)
        SELECT
            account, client_order_id, instrument, side, type, quantity, limit_price, stop_price, time_in_force,
            reduce_only, algo, tag, state, created_at, updated_at, broker_order_id, filled_quantity,
            average_price, reason, cancelling, trail_price, trail_percent
        FROM json_to_recordset(p_orders) AS o(
            account text, client_order_id text, instrument text, side text, type text, quantity numeric,
            limit_price numeric, stop_price numeric, time_in_force text, reduce_only boolean, algo text, tag text,
            state text, created_at bigint, updated_at bigint, broker_order_id text, filled_quantity numeric,
            average_price numeric, reason text, cancelling boolean, trail_price numeric, trail_percent numeric);
    END IF;
    IF p_heads IS NOT NULL THEN
        UPDATE orders SET
            quantity = h.quantity, limit_price = h.limit_price, stop_price = h.stop_price, state = h.state,
            updated_at = h.updated_at, broker_order_id = h.broker_order_id, filled_quantity = h.filled_quantity,
            average_price = h.average_price, reason = h.reason, cancelling = h.cancelling,
            trail_price = h.trail_price, trail_percent = h.trail_percent
        FROM json_to_recordset(p_heads) AS h(
            account text, client_order_id text, quantity numeric, limit_price numeric, stop_price numeric,
            state text, updated_at bigint, broker_order_id text, filled_quantity numeric, average_price numeric,
            reason text, cancelling boolean, trail_price numeric, trail_percent numeric)
        WHERE orders.account = h.account AND orders.client_order_id = h.client_order_id;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> json_array_length(p_heads) THEN
            RAISE EXCEPTION '% of % changed orders were never journaled',
                json_array_length(p_heads) - changed, json_array_length(p_heads) USING ERRCODE = 'QD002';
        END IF;
    END IF;
    IF p_events IS NOT NULL THEN
        INSERT INTO order_events (
            account, client_order_id, kind, at, actor, reason, cause, broker_order_id, fill, quantity, limit_price,
            stop_price, raw, trail_price, trail_percent)
        SELECT
            account, client_order_id, kind, at, actor, coalesce(reason, ''), coalesce(cause, ''), broker_order_id,
            fill, quantity, limit_price, stop_price, coalesce(raw, ''), trail_price, trail_percent
        FROM json_to_recordset(p_events) AS e(
            account text, client_order_id text, kind text, at bigint, actor text, reason text, cause text,
            broker_order_id text, fill json, quantity numeric, limit_price numeric, stop_price numeric, raw text,
            trail_price numeric, trail_percent numeric);
        INSERT INTO fills (
            account, execution_id, client_order_id, instrument, side, algo, quantity, price, fee, fee_currency, at)
        SELECT
            e.account, e.fill ->> 'execution_id', e.client_order_id, o.instrument, o.side, o.algo,
            (e.fill ->> 'quantity')::numeric, (e.fill ->> 'price')::numeric,
            coalesce((e.fill ->> 'fee')::numeric, 0), coalesce(e.fill ->> 'fee_currency', ''),
            (e.fill ->> 'at')::bigint
        FROM json_to_recordset(p_events) AS e(account text, client_order_id text, kind text, fill json)
        LEFT JOIN orders o ON o.account = e.account AND o.client_order_id = e.client_order_id
        WHERE e.kind = 'filled';
    END IF;
    IF p_positions IS NOT NULL THEN
        INSERT INTO positions
        SELECT
            p.account, p.instrument, p.multiplier, p.quantity, p.average_cost, p.realised, p.fees, p.traded,
            p.updated_at
        FROM json_to_recordset(p_positions) AS p(
            account text, instrument text, multiplier numeric, quantity numeric, average_cost numeric,
            realised numeric, fees numeric, traded numeric, updated_at bigint, algo text)
        WHERE p.algo IS NULL
        ON CONFLICT (account, instrument) DO UPDATE SET
            multiplier = excluded.multiplier, quantity = excluded.quantity, average_cost = excluded.average_cost,
            realised = excluded.realised, fees = excluded.fees, traded = excluded.traded,
            updated_at = excluded.updated_at;
        INSERT INTO algo_positions
        SELECT
            p.account, p.algo, p.instrument, p.multiplier, p.quantity, p.average_cost, p.realised, p.fees, p.traded,
            p.updated_at
        FROM json_to_recordset(p_positions) AS p(
            account text, instrument text, multiplier numeric, quantity numeric, average_cost numeric,
            realised numeric, fees numeric, traded numeric, updated_at bigint, algo text)
        WHERE p.algo IS NOT NULL
        ON CONFLICT (account, algo, instrument) DO UPDATE SET
            multiplier = excluded.multiplier, quantity = excluded.quantity, average_cost = excluded.average_cost,
            realised = excluded.realised, fees = excluded.fees, traded = excluded.traded,
            updated_at = excluded.updated_at;
    END IF;
    IF p_breaks IS NOT NULL THEN
        INSERT INTO breaks
        SELECT b.* FROM json_to_recordset(p_breaks) AS b(
            id text, account text, instrument text, kind text, ours text, theirs text, opened_at bigint,
            resolved_at bigint, resolution text)
        ON CONFLICT (id) DO UPDATE SET
            kind = excluded.kind, ours = excluded.ours, theirs = excluded.theirs,
            resolved_at = excluded.resolved_at, resolution = excluded.resolution;
    END IF;
END
$$;
