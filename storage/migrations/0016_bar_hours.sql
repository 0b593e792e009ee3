-- Bars of an hour kept by TimescaleDB, where the extension is there: a continuous aggregate of the minutes.
--
-- It is refreshed behind the table, while history must show at once what was just fetched or amended.  So every change of
-- an hour that may have been aggregated already is noted in the same transaction, and such hours are read from their
-- minutes until a refresh that began later has been done.  (Newer hours the aggregate reads from the minutes by itself.)

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
        OR (SELECT relkind FROM pg_class WHERE oid = 'bars'::regclass) = 'p'
    THEN
        RETURN;
    END IF;

    CREATE FUNCTION bars_now() RETURNS bigint LANGUAGE sql STABLE AS
        'SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint';
    PERFORM set_integer_now_func('bars', 'bars_now');

    EXECUTE $view$
        CREATE MATERIALIZED VIEW bar_hours
        WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
        SELECT instrument, time_bucket(3600000000000::bigint, opened_at) AS opened_at, first(open, opened_at) AS open,
            max(high) AS high, min(low) AS low, last(close, opened_at) AS close, sum(volume) AS volume,
            sum(trades)::integer AS trades
        FROM bars WHERE width = 60000000000 GROUP BY 1, 2
        WITH NO DATA
    $view$;
    -- Hours that ended three hours ago are aggregated, every ten minutes.
    PERFORM add_continuous_aggregate_policy('bar_hours', start_offset => NULL::bigint,
        end_offset => 10800000000000::bigint, schedule_interval => interval '10 minutes');

    CREATE TABLE stale_bar_hours (
        instrument integer NOT NULL,
        opened_at bigint NOT NULL,
        changed_at bigint NOT NULL,
        PRIMARY KEY (instrument, opened_at)
    );
    INSERT INTO table_rights VALUES ('stale_bar_hours', '');

    -- Two hours, to be on the safe side of the three above.
    CREATE FUNCTION note_stale_hours() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $body$
    BEGIN
        INSERT INTO stale_bar_hours AS s
            SELECT DISTINCT instrument, opened_at - opened_at % 3600000000000, bars_now() FROM changed
            WHERE width = 60000000000 AND opened_at < bars_now() - 7200000000000
            ON CONFLICT (instrument, opened_at) DO UPDATE SET changed_at = excluded.changed_at;
        RETURN NULL;
    END
    $body$;
    CREATE TRIGGER note_new_hours AFTER INSERT ON bars
        REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_stale_hours();
    CREATE TRIGGER note_changed_hours AFTER UPDATE ON bars
        REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_stale_hours();
    CREATE TRIGGER note_dropped_hours AFTER DELETE ON bars
        REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_stale_hours();

    -- Hours of an instrument that open in [p_from, p_until), from whole hours of minutes.
    CREATE FUNCTION read_bar_hours(p_instrument integer, p_from bigint, p_until bigint)
    RETURNS TABLE (opened_at bigint, open double precision, high double precision, low double precision,
        close double precision, volume double precision, trades integer)
    LANGUAGE sql STABLE SECURITY DEFINER AS $body$
        WITH stale AS (
            SELECT s.opened_at FROM stale_bar_hours s
            WHERE s.instrument = p_instrument AND s.opened_at >= p_from AND s.opened_at < p_until
        )
        SELECT h.opened_at, h.open, h.high, h.low, h.close, h.volume, h.trades FROM bar_hours h
        WHERE h.instrument = p_instrument AND h.opened_at >= p_from AND h.opened_at < p_until
            AND h.opened_at NOT IN (SELECT stale.opened_at FROM stale)
        UNION ALL
        SELECT stale.opened_at, m.* FROM stale, LATERAL (
            SELECT first(b.open, b.opened_at), max(b.high), min(b.low), last(b.close, b.opened_at), sum(b.volume),
                sum(b.trades)::integer
            FROM bars b WHERE b.instrument = p_instrument AND b.width = 60000000000
                AND b.opened_at >= stale.opened_at AND b.opened_at < stale.opened_at + 3600000000000
            HAVING count(*) > 0
        ) m
        ORDER BY 1
    $body$;

    -- Forgets what a refresh has seen that began after the change; returns how many hours that were.
    CREATE FUNCTION settle_bar_hours() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $body$
    DECLARE
        began bigint;
        settled bigint;
    BEGIN
        SELECT (extract(epoch FROM j.last_successful_finish - j.last_run_duration) * 1000000000)::bigint INTO began
        FROM timescaledb_information.job_stats j JOIN timescaledb_information.jobs d USING (job_id)
        WHERE d.proc_name = 'policy_refresh_continuous_aggregate' AND j.last_run_status = 'Success'
            AND (d.config ->> 'mat_hypertable_id')::integer = (
                SELECT c.mat_hypertable_id FROM _timescaledb_catalog.continuous_agg c
                WHERE c.user_view_name = 'bar_hours' AND c.user_view_schema = current_schema());
        -- A transaction that changed bars may end some time after it noted them.
        DELETE FROM stale_bar_hours s WHERE s.changed_at < began - 60000000000
            AND s.opened_at + 3600000000000 < began - 10800000000000 - 60000000000;
        GET DIAGNOSTICS settled = ROW_COUNT;
        RETURN settled;
    END
    $body$;
    EXECUTE format('ALTER FUNCTION note_stale_hours() SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION settle_bar_hours() SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION read_bar_hours(integer, bigint, bigint) SET search_path = %I, pg_temp',
        current_schema());
    REVOKE EXECUTE ON FUNCTION settle_bar_hours(), read_bar_hours(integer, bigint, bigint) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION settle_bar_hours(), read_bar_hours(integer, bigint, bigint) TO quarterdeck_app;
END
$$;
