-- Bars as they are kept: of a second and of a minute (`trading/bar_deriving.py` makes the others), and which spans of
-- time are known whole.  `width` and all times are nanoseconds.
--
-- Partitioned by width, then by time: a day of seconds, a month of minutes.  Partitions are made before they are
-- needed by make_bar_partitions and dropped by drop_bars, the owner's functions, for the application may not.
-- Where the extension TimescaleDB was created in this database before, bars is a hypertable instead.

DO $$
DECLARE
    columns text := '
        instrument integer NOT NULL,
        width bigint NOT NULL,
        opened_at bigint NOT NULL,
        open double precision NOT NULL,
        high double precision NOT NULL,
        low double precision NOT NULL,
        close double precision NOT NULL,
        volume double precision NOT NULL,
        trades integer NOT NULL,
        source smallint NOT NULL,
        revision integer NOT NULL,
        PRIMARY KEY (instrument, width, opened_at)';
BEGIN
    IF EXISTS (SELECT FROM pg_proc WHERE proname = 'create_hypertable') THEN
        EXECUTE format('CREATE TABLE bars (%s)', columns);
        PERFORM create_hypertable('bars', 'opened_at', chunk_time_interval => 604800000000000::bigint);
    ELSE
        EXECUTE format('CREATE TABLE bars (%s) PARTITION BY LIST (width)', columns);
        CREATE TABLE bars_1s PARTITION OF bars FOR VALUES IN (1000000000) PARTITION BY RANGE (opened_at);
        CREATE TABLE bars_1m PARTITION OF bars FOR VALUES IN (60000000000) PARTITION BY RANGE (opened_at);
        -- Reached through `bars` only.
        INSERT INTO table_rights VALUES ('bars_1s', ''), ('bars_1m', '');
    END IF;
END
$$;

COMMENT ON COLUMN bars.source IS '1: built here from ticks, 2: the provider''s own, which ours never replaces';

-- Spans that were fetched or seen whole: a bar that is absent here stands for no trade.
CREATE TABLE bar_coverage (
    instrument integer NOT NULL,
    width bigint NOT NULL,
    from_at bigint NOT NULL,
    until_at bigint NOT NULL CHECK (until_at > from_at),
    PRIMARY KEY (instrument, width, from_at)
);

-- Who is fetching from a provider now, so that nobody else does.
CREATE TABLE bar_fetches (
    instrument integer NOT NULL,
    width bigint NOT NULL,
    holder text NOT NULL,
    expires_at bigint NOT NULL,
    PRIMARY KEY (instrument, width)
);

INSERT INTO table_rights VALUES ('bars', 'INSERT, UPDATE');

-- Writers of bars and coverage take turns: their transactions are short, and their order is then the same everywhere.
CREATE FUNCTION lock_bars() RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(x'42415253'::bigint)
$$;

-- Adds spans to the coverage, one for each place in the arrays; what touches becomes one.
CREATE FUNCTION cover_bars(p_instruments integer[], p_widths bigint[], p_from bigint[], p_until bigint[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    each record;
    whole record;
BEGIN
    PERFORM lock_bars();
    FOR each IN
        SELECT * FROM unnest(p_instruments, p_widths, p_from, p_until) AS n(instrument, width, from_at, until_at)
    LOOP
        CONTINUE WHEN EXISTS (
            SELECT FROM bar_coverage c WHERE c.instrument = each.instrument AND c.width = each.width
                AND c.from_at <= each.from_at AND c.until_at >= each.until_at);
        SELECT least(min(c.from_at), each.from_at) AS from_at, greatest(max(c.until_at), each.until_at) AS until_at
        INTO whole FROM bar_coverage c
        WHERE c.instrument = each.instrument AND c.width = each.width
            AND c.from_at <= each.until_at AND c.until_at >= each.from_at;
        DELETE FROM bar_coverage c WHERE c.instrument = each.instrument AND c.width = each.width
            AND c.from_at <= each.until_at AND c.until_at >= each.from_at;
        INSERT INTO bar_coverage VALUES (each.instrument, each.width, whole.from_at, whole.until_at);
    END LOOP;
END
$$;

-- Takes spans out of the coverage again.
CREATE FUNCTION uncover_bars(p_instruments integer[], p_widths bigint[], p_from bigint[], p_until bigint[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    each record;
    part record;
BEGIN
    PERFORM lock_bars();
    FOR each IN
        SELECT * FROM unnest(p_instruments, p_widths, p_from, p_until) AS n(instrument, width, from_at, until_at)
    LOOP
        FOR part IN
            SELECT c.from_at, c.until_at FROM bar_coverage c
            WHERE c.instrument = each.instrument AND c.width = each.width
                AND c.from_at < each.until_at AND c.until_at > each.from_at
        LOOP
            DELETE FROM bar_coverage c
            WHERE c.instrument = each.instrument AND c.width = each.width AND c.from_at = part.from_at;
            IF part.from_at < each.from_at THEN
                INSERT INTO bar_coverage VALUES (each.instrument, each.width, part.from_at, each.from_at);
            END IF;
            IF part.until_at > each.until_at THEN
                INSERT INTO bar_coverage VALUES (each.instrument, each.width, each.until_at, part.until_at);
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- Makes the partitions of a width that are missing for [p_from, p_until); returns how many it made.
CREATE FUNCTION make_bar_partitions(p_width bigint, p_from bigint, p_until bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    family text := CASE p_width WHEN 1000000000 THEN 'bars_1s' WHEN 60000000000 THEN 'bars_1m' END;
    unit text := CASE p_width WHEN 1000000000 THEN 'day' ELSE 'month' END;
    step interval := ('1 ' || unit)::interval;
    at timestamp := date_trunc(unit, timestamp 'epoch' + p_from / 1000000000 * interval '1 second');
    ends timestamp := timestamp 'epoch' + p_until / 1000000000 * interval '1 second';
    name text;
    room oid := (SELECT relnamespace FROM pg_class WHERE oid = 'bars'::regclass);
    made integer := 0;
BEGIN
    IF (SELECT relkind FROM pg_class WHERE oid = 'bars'::regclass) <> 'p' THEN
        RETURN 0; -- a hypertable looks after itself
    END IF;
    IF family IS NULL OR p_from < 0 OR p_until < p_from OR (ends - at) / 1000 > step THEN
        RAISE EXCEPTION 'no partitions of width % from % to %', p_width, p_from, p_until USING ERRCODE = 'QD003';
    END IF;
    WHILE at <= ends LOOP
        name := family || to_char(at, CASE unit WHEN 'day' THEN '_YYYYMMDD' ELSE '_YYYYMM' END);
        IF NOT EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = room) THEN
            PERFORM pg_advisory_xact_lock(x'42415250'::bigint);
            -- (to_regclass would still remember that there was none.)
            IF NOT EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = room) THEN
                -- Made apart and attached, which holds up neither readers nor writers.
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, family);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', family, name,
                    extract(epoch FROM at)::bigint * 1000000000, extract(epoch FROM at + step)::bigint * 1000000000);
                EXECUTE format('GRANT SELECT ON %I TO quarterdeck_app', name);
                INSERT INTO table_rights VALUES (name, '');
                made := made + 1;
            END IF;
        END IF;
        at := at + step;
    END LOOP;
    RETURN made;
END
$$;

-- Drops partitions of a width whose time is wholly before p_before, and says so in the coverage; returns how many.
-- (Of a hypertable: deletes rows, and returns how many.)
CREATE FUNCTION drop_bars(p_width bigint, p_before bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    family text := CASE p_width WHEN 1000000000 THEN 'bars_1s' WHEN 60000000000 THEN 'bars_1m' END;
    each record;
    until bigint := 0;
    gone bigint := 0;
BEGIN
    IF family IS NULL OR p_before > (extract(epoch FROM clock_timestamp()) - 86400) * 1000000000 THEN
        RAISE EXCEPTION 'bars of width % before % are not dropped: keep a day at least', p_width, p_before
            USING ERRCODE = 'QD003';
    END IF;
    PERFORM lock_bars();
    IF (SELECT relkind FROM pg_class WHERE oid = 'bars'::regclass) <> 'p' THEN
        DELETE FROM bars WHERE width = p_width AND opened_at < p_before;
        GET DIAGNOSTICS gone = ROW_COUNT;
        until := p_before;
    ELSE
        -- A long reader must not hold up all writers behind this lock.
        SET LOCAL lock_timeout = '2s';
        FOR each IN
            SELECT c.relname AS name,
                (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''?(\d+)''?\)'))[1]::bigint AS ends
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = family::regclass ORDER BY 2
        LOOP
            EXIT WHEN each.ends > p_before;
            EXECUTE format('DROP TABLE %I', each.name);
            DELETE FROM table_rights r WHERE r.name = each.name;
            until := each.ends;
            gone := gone + 1;
        END LOOP;
    END IF;
    DELETE FROM bar_coverage c WHERE c.width = p_width AND c.until_at <= until;
    UPDATE bar_coverage c SET from_at = until WHERE c.width = p_width AND c.from_at < until;
    RETURN gone;
END
$$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['make_bar_partitions', 'drop_bars'] LOOP
        EXECUTE format('ALTER FUNCTION %I SET search_path = %I, pg_temp', name, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %I FROM PUBLIC', name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I TO quarterdeck_app', name);
    END LOOP;
END
$$;
