-- What happened: leases that decide who may write, the order journal, what risk has lent.

CREATE TABLE leases (
    name text PRIMARY KEY,
    epoch bigint NOT NULL,
    holder text NOT NULL,
    taken_at bigint NOT NULL,
    expires_at bigint NOT NULL
) WITH (fillfactor = 50);

-- Holds the lease row until the end of the transaction, so a successor that takes the lease waits for this
-- write and then sees it; one that took it before is seen here.
CREATE FUNCTION check_fence(p_name text, p_epoch bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    seen bigint;
BEGIN
    SELECT epoch INTO seen FROM leases WHERE name = p_name FOR SHARE;
    IF seen IS DISTINCT FROM p_epoch THEN
        RAISE EXCEPTION 'epoch % of % is over', p_epoch, p_name
            USING ERRCODE = 'QD001', DETAIL = coalesce(seen, 0)::text;
    END IF;
END
$$;

CREATE TABLE journal_batches (
    owner text NOT NULL,
    epoch bigint NOT NULL,
    batch_id bigint NOT NULL,
    PRIMARY KEY (owner, epoch, batch_id)
);

-- No foreign key to accounts: it would lock the account's row on every order.
CREATE TABLE orders (
    number bigint GENERATED ALWAYS AS IDENTITY,
    account text NOT NULL,
    client_order_id text NOT NULL,
    instrument text NOT NULL,
    side text NOT NULL,
    type text NOT NULL,
    quantity numeric NOT NULL,
    limit_price numeric,
    stop_price numeric,
    time_in_force text NOT NULL,
    reduce_only boolean NOT NULL,
    algo text,
    tag text NOT NULL,
    state text NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    broker_order_id text,
    filled_quantity numeric NOT NULL,
    average_price numeric NOT NULL,
    reason text NOT NULL,
    cancelling boolean NOT NULL,
    PRIMARY KEY (account, client_order_id)
) WITH (fillfactor = 70);
CREATE INDEX orders_by_time ON orders (created_at DESC, number DESC);
-- In another collation, for lists that ask in it: while the tables are new and without statistics, the planner
-- would take this one instead of the primary key to look up an order, and read all orders of the account.
CREATE INDEX orders_of_account ON orders (account COLLATE "C", created_at DESC, number DESC);
CREATE INDEX orders_of_instrument ON orders (instrument, created_at DESC, number DESC);
CREATE INDEX orders_of_algo ON orders (algo, created_at DESC, number DESC) WHERE algo IS NOT NULL;
CREATE INDEX orders_open ON orders (account, created_at DESC, number DESC)
    WHERE state IN ('pending', 'submitted', 'partially_filled', 'unknown');
-- BRIN, for it alone lets updates stay within their page.
CREATE INDEX orders_by_update ON orders USING brin (updated_at) WITH (pages_per_range = 16, autosummarize = on);

CREATE TABLE order_events (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text NOT NULL,
    client_order_id text NOT NULL,
    kind text NOT NULL,
    at bigint NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    cause text NOT NULL,
    broker_order_id text,
    fill json,
    quantity numeric,
    limit_price numeric,
    stop_price numeric,
    raw text NOT NULL
);
CREATE INDEX order_events_of_order ON order_events (account, client_order_id, number);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON order_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE fills (
    number bigint GENERATED ALWAYS AS IDENTITY,
    account text NOT NULL,
    execution_id text NOT NULL,
    client_order_id text NOT NULL,
    instrument text NOT NULL,
    side text NOT NULL,
    algo text,
    quantity numeric NOT NULL,
    price numeric NOT NULL,
    fee numeric NOT NULL,
    fee_currency text NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (account, execution_id)
);
CREATE INDEX fills_by_time ON fills (at DESC, number DESC);
CREATE INDEX fills_of_account ON fills (account COLLATE "C", at DESC, number DESC);
CREATE INDEX fills_of_order ON fills (account, client_order_id);
CREATE INDEX fills_of_algo ON fills (algo, at DESC, number DESC) WHERE algo IS NOT NULL;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fills
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE positions (
    account text NOT NULL,
    instrument text NOT NULL,
    multiplier numeric NOT NULL,
    quantity numeric NOT NULL,
    average_cost numeric NOT NULL,
    realised numeric NOT NULL,
    fees numeric NOT NULL,
    traded numeric NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (account, instrument)
) WITH (fillfactor = 50);

CREATE TABLE breaks (
    id text PRIMARY KEY,
    account text NOT NULL,
    instrument text NOT NULL,
    kind text NOT NULL,
    ours text NOT NULL,
    theirs text NOT NULL,
    opened_at bigint NOT NULL,
    resolved_at bigint NOT NULL,
    resolution text NOT NULL
);
CREATE INDEX breaks_open ON breaks (account) WHERE resolved_at = 0;

-- One decision of a session, whole or not at all.  Lists are JSON arrays of the structs of `trading`, with
-- decimals as strings; NULL stands for an empty list.  The planner may only look rows up by their keys: a plan
-- made while the tables are small would read them whole, and stays in use while they grow.
CREATE FUNCTION journal_append(
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
            average_price, reason, cancelling)
        SELECT
            account, client_order_id, instrument, side, type, quantity, limit_price, stop_price, time_in_force,
            reduce_only, algo, tag, state, created_at, updated_at, broker_order_id, filled_quantity,
            average_price, reason, cancelling
        FROM json_to_recordset(p_orders) AS o(
            account text, client_order_id text, instrument text, side text, type text, quantity numeric,
            limit_price numeric, stop_price numeric, time_in_force text, reduce_only boolean, algo text, tag text,
            state text, created_at bigint, updated_at bigint, broker_order_id text, filled_quantity numeric,
            average_price numeric, reason text, cancelling boolean);
    END IF;
    IF p_heads IS NOT NULL THEN
        UPDATE orders SET
            quantity = h.quantity, limit_price = h.limit_price, stop_price = h.stop_price, state = h.state,
            updated_at = h.updated_at, broker_order_id = h.broker_order_id, filled_quantity = h.filled_quantity,
            average_price = h.average_price, reason = h.reason, cancelling = h.cancelling
        FROM json_to_recordset(p_heads) AS h(
            account text, client_order_id text, quantity numeric, limit_price numeric, stop_price numeric,
            state text, updated_at bigint, broker_order_id text, filled_quantity numeric, average_price numeric,
            reason text, cancelling boolean)
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
            stop_price, raw)
        SELECT
            account, client_order_id, kind, at, actor, coalesce(reason, ''), coalesce(cause, ''), broker_order_id,
            fill, quantity, limit_price, stop_price, coalesce(raw, '')
        FROM json_to_recordset(p_events) AS e(
            account text, client_order_id text, kind text, at bigint, actor text, reason text, cause text,
            broker_order_id text, fill json, quantity numeric, limit_price numeric, stop_price numeric, raw text);
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

CREATE TABLE loans (
    session text NOT NULL,
    session_epoch bigint NOT NULL,
    resource text NOT NULL,
    amount numeric NOT NULL CHECK (amount > 0),
    PRIMARY KEY (session, session_epoch, resource)
);

CREATE FUNCTION save_loans(p_epoch bigint, p_loans json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_fence('risk/main', p_epoch);
    DELETE FROM loans USING json_to_recordset(p_loans) AS l(
        session text, session_epoch bigint, resource text, amount numeric)
    WHERE l.amount = 0 AND loans.session = l.session AND loans.session_epoch = l.session_epoch
        AND loans.resource = l.resource;
    INSERT INTO loans
    SELECT l.* FROM json_to_recordset(p_loans) AS l(
        session text, session_epoch bigint, resource text, amount numeric)
    WHERE l.amount <> 0
    ON CONFLICT (session, session_epoch, resource) DO UPDATE SET amount = excluded.amount;
END
$$;
