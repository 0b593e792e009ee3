-- Append-only for real, and tampering shows.
--
-- The application works as the role quarterdeck_app, which may neither update, delete nor truncate what is append-only,
-- nor touch the triggers that guard it; migrations work as the owner.  Every insert into a chained table adds a link to
-- a chain of digests: one chain for each account, so that sessions never wait for each other, and one for the deck.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'quarterdeck_app') THEN
        BEGIN
            CREATE ROLE quarterdeck_app NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- another database of this server was faster
        END;
    END IF;
    IF NOT pg_has_role(current_user, 'quarterdeck_app', 'MEMBER') THEN
        EXECUTE format('GRANT quarterdeck_app TO %I', current_user);
    END IF;
END
$$;

-- What the application may do with a table beyond reading it.  Tables that are not here may be changed in any way.
CREATE TABLE table_rights (
    name text PRIMARY KEY,
    rights text NOT NULL
);
INSERT INTO table_rights VALUES
    ('order_events', 'INSERT'), ('fills', 'INSERT'), ('limits', 'INSERT'), ('audit', 'INSERT'),
    ('orders', 'INSERT, UPDATE'), ('kills', 'INSERT, UPDATE'), ('breaks', 'INSERT, UPDATE'),
    ('positions', 'INSERT, UPDATE'), ('algo_positions', 'INSERT, UPDATE'), ('level_days', 'INSERT, UPDATE'),
    ('risk_maxima', 'INSERT, UPDATE'), ('cash_books', 'INSERT, UPDATE'), ('reconciliations', 'INSERT, UPDATE'),
    ('audit_chain', ''), ('schema_migrations', ''), ('table_rights', '');

-- Called after every migration: new tables get their rights too.
CREATE FUNCTION grant_application() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    each record;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO quarterdeck_app', current_schema());
    FOR each IN
        SELECT t.tablename AS name, coalesce(r.rights, 'INSERT, UPDATE, DELETE') AS rights
        FROM pg_tables t LEFT JOIN table_rights r ON r.name = t.tablename WHERE t.schemaname = current_schema()
    LOOP
        EXECUTE format('REVOKE ALL ON %I FROM quarterdeck_app', each.name);
        EXECUTE format('GRANT SELECT ON %I TO quarterdeck_app', each.name);
        IF each.rights <> '' THEN
            EXECUTE format('GRANT %s ON %I TO quarterdeck_app', each.rights, each.name);
        END IF;
    END LOOP;
    EXECUTE format('GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA %I TO quarterdeck_app', current_schema());
END
$$;

-- `digest` = sha256(digest of the link before || the rows as text, by number).  `retired`: the rows were old enough to
-- be deleted; the link stays.
CREATE TABLE audit_chain (
    chain text NOT NULL,
    number bigint NOT NULL,
    source text NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    rows integer NOT NULL,
    digest bytea NOT NULL,
    retired boolean NOT NULL DEFAULT false,
    PRIMARY KEY (chain, number)
);

ALTER TABLE limits ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY;

-- The text of a row that its digest is made of: of an order only what never changes.  Columns are named, so that one
-- added later changes no old row.  (The triggers repeat it: rows of a transition table have no type to call it by.)
CREATE FUNCTION audit_text(t orders) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(t.number, t.account, t.client_order_id, t.instrument, t.side, t.type, t.time_in_force, t.reduce_only,
        t.algo, t.tag, t.created_at)::text
$$;
CREATE FUNCTION audit_text(t order_events) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(t.number, t.account, t.client_order_id, t.kind, t.at, t.actor, t.reason, t.cause, t.broker_order_id,
        t.fill, t.quantity, t.limit_price, t.stop_price, t.raw, t.trail_price, t.trail_percent)::text
$$;
CREATE FUNCTION audit_text(t limits) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(t.number, t.scope, t.kind, t.instrument, t.version, t.value, t.changed_at, t.changed_by)::text
$$;
CREATE FUNCTION audit_text(t audit) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(t.number, t.at, t.actor, t.action, t.subject, t.before, t.after)::text
$$;

CREATE FUNCTION audit_link(p_chain text, p_source text, p_first bigint, p_last bigint, p_rows bigint, p_text text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    head record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('audit/' || p_chain, 0));
    SELECT number, digest INTO head FROM audit_chain WHERE chain = p_chain ORDER BY number DESC LIMIT 1;
    INSERT INTO audit_chain (chain, number, source, first, last, rows, digest)
    VALUES (p_chain, coalesce(head.number, 0) + 1, p_source, p_first, p_last, p_rows,
        sha256(coalesce(head.digest, ''::bytea) || convert_to(p_text, 'UTF8')));
END
$$;

CREATE FUNCTION chain_orders() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT account, min(number) AS first, max(number) AS last, count(*) AS rows,
            string_agg(
                ROW(a.number, a.account, a.client_order_id, a.instrument, a.side, a.type, a.time_in_force, a.reduce_only,
                    a.algo, a.tag, a.created_at)::text,
                E'\n' ORDER BY number) AS text
        FROM added a GROUP BY account ORDER BY account
    LOOP
        PERFORM audit_link('account/' || each.account, 'orders', each.first, each.last, each.rows, each.text);
    END LOOP;
    RETURN NULL;
END
$$;

CREATE FUNCTION chain_order_events() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT account, min(number) AS first, max(number) AS last, count(*) AS rows,
            string_agg(
                ROW(a.number, a.account, a.client_order_id, a.kind, a.at, a.actor, a.reason, a.cause, a.broker_order_id,
                    a.fill, a.quantity, a.limit_price, a.stop_price, a.raw, a.trail_price, a.trail_percent)::text,
                E'\n' ORDER BY number) AS text
        FROM added a GROUP BY account ORDER BY account
    LOOP
        PERFORM audit_link('account/' || each.account, 'order_events', each.first, each.last, each.rows, each.text);
    END LOOP;
    RETURN NULL;
END
$$;

CREATE FUNCTION chain_limits() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    each record;
BEGIN
    SELECT min(number) AS first, max(number) AS last, count(*) AS rows,
        string_agg(
                ROW(a.number, a.scope, a.kind, a.instrument, a.version, a.value, a.changed_at, a.changed_by)::text,
                E'\n' ORDER BY number) AS text
    INTO each FROM added a;
    IF each.rows > 0 THEN
        PERFORM audit_link('deck', 'limits', each.first, each.last, each.rows, each.text);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION chain_audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    each record;
BEGIN
    SELECT min(number) AS first, max(number) AS last, count(*) AS rows,
        string_agg(
                ROW(a.number, a.at, a.actor, a.action, a.subject, a.before, a.after)::text,
                E'\n' ORDER BY number) AS text
    INTO each FROM added a;
    IF each.rows > 0 THEN
        PERFORM audit_link('deck', 'audit', each.first, each.last, each.rows, each.text);
    END IF;
    RETURN NULL;
END
$$;

CREATE UNIQUE INDEX limits_by_number ON limits (number);
-- Collated apart, so that no plan takes them for the keys (see orders_of_account in 0002).
CREATE INDEX order_events_by_account ON order_events (account COLLATE "C", number);
CREATE INDEX orders_by_account_number ON orders (account COLLATE "C", number);
CREATE INDEX audit_by_time ON audit (at DESC, number DESC);

-- What was there before this migration is chained now, a thousand rows to a link.
DO $$
DECLARE
    each record;
    source text;
BEGIN
    FOREACH source IN ARRAY ARRAY['orders', 'order_events'] LOOP
        FOR each IN EXECUTE format(
            'SELECT account, min(number) AS first, max(number) AS last, count(*) AS rows,
                string_agg(text, E''\n'' ORDER BY number) AS text
            FROM (SELECT account, number, audit_text(t) AS text,
                    (row_number() OVER (PARTITION BY account ORDER BY number) - 1) / 1000 AS part FROM %I t) parts
            GROUP BY account, part ORDER BY account, part', source)
        LOOP
            PERFORM audit_link('account/' || each.account, source, each.first, each.last, each.rows, each.text);
        END LOOP;
    END LOOP;
    FOREACH source IN ARRAY ARRAY['limits', 'audit'] LOOP
        FOR each IN EXECUTE format(
            'SELECT min(number) AS first, max(number) AS last, count(*) AS rows,
                string_agg(text, E''\n'' ORDER BY number) AS text
            FROM (SELECT number, audit_text(t) AS text,
                    (row_number() OVER (ORDER BY number) - 1) / 1000 AS part FROM %I t) parts
            GROUP BY part ORDER BY part', source)
        LOOP
            PERFORM audit_link('deck', source, each.first, each.last, each.rows, each.text);
        END LOOP;
    END LOOP;
END
$$;

CREATE TRIGGER chained AFTER INSERT ON orders
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION chain_orders();
CREATE TRIGGER chained AFTER INSERT ON order_events
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION chain_order_events();
CREATE TRIGGER chained AFTER INSERT ON limits
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION chain_limits();
CREATE TRIGGER chained AFTER INSERT ON audit
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION chain_audit();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_chain
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The owner's functions are called by the application only through triggers and by these names.
DO $$
DECLARE
    name text;
BEGIN
    REVOKE EXECUTE ON FUNCTION audit_link FROM PUBLIC;
    REVOKE EXECUTE ON FUNCTION grant_application FROM PUBLIC;
    -- A definer's function must not be led astray by the caller's search_path.
    FOREACH name IN ARRAY ARRAY['audit_link', 'chain_orders', 'chain_order_events', 'chain_limits', 'chain_audit'] LOOP
        EXECUTE format('ALTER FUNCTION %I SET search_path = %I, pg_temp', name, current_schema());
    END LOOP;
END
$$;
