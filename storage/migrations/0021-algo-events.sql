-- What happened to each algo, written by the change itself, whoever makes it and by whatever statement: why an algo
-- does not run always has an answer.  Kept after the algo is gone, for 90 days and 10,000 events of each at most.
CREATE TABLE algo_events (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    algo text NOT NULL,
    "user" text NOT NULL,
    at bigint NOT NULL,
    -- Parts that changed, or 'created', 'deleted', 'restart'.
    what jsonb NOT NULL,
    epoch bigint NOT NULL,
    generation bigint NOT NULL,
    want text NOT NULL,
    state text NOT NULL,
    reason text NOT NULL,
    -- Where the incarnation was started.
    node text NOT NULL,
    by text NOT NULL
);
CREATE INDEX algo_events_of_algo ON algo_events (algo, number);
CREATE INDEX algo_events_by_time ON algo_events (at);
INSERT INTO table_rights VALUES ('algo_events', 'INSERT, DELETE');

CREATE FUNCTION note_algo_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    r algos;
    parts text[];
    noted bigint;
    began bigint := (extract(epoch FROM clock_timestamp()) * 1e9)::bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        r := NEW;
        parts := ARRAY['created'];
    ELSIF TG_OP = 'DELETE' THEN
        r := OLD;
        parts := ARRAY['deleted'];
    ELSE
        r := NEW;
        parts := array_remove(ARRAY[
            CASE WHEN NEW.want <> OLD.want THEN 'want' END,
            CASE WHEN NEW.state <> OLD.state THEN 'state' END,
            CASE WHEN NEW.reason <> OLD.reason THEN 'reason' END,
            CASE WHEN NEW.epoch <> OLD.epoch THEN 'epoch' END,
            CASE WHEN NEW.parameters <> OLD.parameters THEN 'parameters' END,
            CASE WHEN NEW.strategy_version <> OLD.strategy_version THEN 'strategy_version' END,
            CASE WHEN NEW.node <> OLD.node THEN 'node' END,
            CASE WHEN NEW.placement <> OLD.placement THEN 'placement' END,
            CASE WHEN NEW.labels <> OLD.labels THEN 'labels' END,
            CASE WHEN NEW.paused_by <> OLD.paused_by THEN
                CASE WHEN NEW.paused_by = '' THEN 'resumed' ELSE 'paused' END END,
            CASE WHEN NEW.stop_orders <> OLD.stop_orders THEN 'stop_orders' END,
            CASE WHEN NEW.stop_position <> OLD.stop_position THEN 'stop_position' END
        ], NULL);
        IF cardinality(parts) = 0 THEN
            IF NEW.restart_generation = OLD.restart_generation THEN
                RETURN NULL;
            END IF;
            parts := ARRAY['restart'];
        END IF;
    END IF;
    INSERT INTO algo_events (algo, "user", at, what, epoch, generation, want, state, reason, node, by)
    VALUES (r.id, r."user", began, to_jsonb(parts), r.epoch, r.generation, r.want, r.state, r.reason, r.placed,
        coalesce(current_setting('quarterdeck.by', true), ''))
    RETURNING number INTO noted;
    -- Now and then what is too old, or too much.
    IF noted % 200 = 0 THEN
        DELETE FROM algo_events WHERE at < began - 7776000000000000;
        DELETE FROM algo_events WHERE algo = r.id AND number <= (
            SELECT number FROM algo_events WHERE algo = r.id ORDER BY number DESC OFFSET 10000 LIMIT 1);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON algos FOR EACH ROW EXECUTE FUNCTION note_algo_event();

-- Those that are there already begin with what is known of them.
INSERT INTO algo_events (algo, "user", at, what, epoch, generation, want, state, reason, node, by)
SELECT id, "user", updated_at, '["known"]', epoch, generation, want, state, reason, placed, 'upgrade' FROM algos;
