-- Trailing stops: their distance in orders, events and the paper book, and the best price a paper one has seen.

ALTER TABLE orders ADD COLUMN trail_price numeric, ADD COLUMN trail_percent numeric;
ALTER TABLE order_events ADD COLUMN trail_price numeric, ADD COLUMN trail_percent numeric;
ALTER TABLE paper_orders
    ADD COLUMN trail_price numeric, ADD COLUMN trail_percent numeric, ADD COLUMN high_water numeric;

-- As in 0002, with the trails.
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
        SELECT p.* FROM json_to_recordset(p_positions) AS p(
            account text, instrument text, multiplier numeric, quantity numeric, average_cost numeric,
            realised numeric, fees numeric, traded numeric, updated_at bigint)
        ON CONFLICT (account, instrument) DO UPDATE SET
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

-- As in 0003, with the trails.
CREATE OR REPLACE FUNCTION paper_save(
    p_account text, p_epoch bigint, p_orders json, p_fills json, p_positions json, p_cash numeric, p_currency text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_fence('connection/' || p_account, p_epoch);
    IF p_orders IS NOT NULL THEN
        INSERT INTO paper_orders
        SELECT
            p_account, broker_order_id, tag, instrument, side, type, time_in_force, quantity, filled_quantity, state,
            at, limit_price, stop_price, coalesce(average_price, 0), coalesce(triggered, false),
            coalesce(reason, ''), trail_price, trail_percent, high_water
        FROM json_to_recordset(p_orders) AS o(
            broker_order_id text, tag text, instrument text, side text, type text, time_in_force text,
            quantity numeric, filled_quantity numeric, state text, at bigint, limit_price numeric,
            stop_price numeric, average_price numeric, triggered boolean, reason text,
            trail_price numeric, trail_percent numeric, high_water numeric)
        ON CONFLICT (account, broker_order_id) DO UPDATE SET
            quantity = excluded.quantity, filled_quantity = excluded.filled_quantity, state = excluded.state,
            at = excluded.at, limit_price = excluded.limit_price, stop_price = excluded.stop_price,
            average_price = excluded.average_price, triggered = excluded.triggered, reason = excluded.reason,
            trail_price = excluded.trail_price, trail_percent = excluded.trail_percent,
            high_water = excluded.high_water;
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
