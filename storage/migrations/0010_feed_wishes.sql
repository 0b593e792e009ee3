-- Who else wants which instruments of a feed, and in which channels; the feed's own list stays in its row.
CREATE TABLE feed_wishes (
    feed text NOT NULL REFERENCES feeds (id) ON DELETE CASCADE,
    client text NOT NULL,
    instrument text NOT NULL,
    channels jsonb NOT NULL,
    PRIMARY KEY (feed, client, instrument)
);

-- The day after which an instrument is not traded any more, '' where there is none.
ALTER TABLE instruments ADD COLUMN expires_on text NOT NULL DEFAULT '';

-- A feed may be deleted by force while algos name it, which a foreign key does not allow; else all is as with one.
-- Changes of desired state queue up behind one another, so nothing can come between look and act.
ALTER TABLE algos DROP CONSTRAINT algos_feed_fkey;

CREATE FUNCTION algo_names_a_feed() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM feeds WHERE id = NEW.feed) THEN
        RAISE EXCEPTION 'there is no feed %', NEW.feed USING
            ERRCODE = 'foreign_key_violation', TABLE = 'algos', CONSTRAINT = 'algos_feed_fkey',
            DETAIL = format('Key (feed)=(%s) is not present in table "feeds".', NEW.feed);
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER algo_names_a_feed BEFORE INSERT ON algos
    FOR EACH ROW EXECUTE FUNCTION algo_names_a_feed();
CREATE TRIGGER algo_goes_to_a_feed BEFORE UPDATE ON algos
    FOR EACH ROW WHEN (OLD.feed IS DISTINCT FROM NEW.feed) EXECUTE FUNCTION algo_names_a_feed();

CREATE FUNCTION feed_is_unused() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('quarterdeck.forced', true) IS DISTINCT FROM OLD.id
        AND EXISTS (SELECT FROM algos WHERE feed = OLD.id)
    THEN
        RAISE EXCEPTION 'algos use feed %', OLD.id USING ERRCODE = 'foreign_key_violation', TABLE = 'algos';
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER feed_is_unused BEFORE DELETE ON feeds FOR EACH ROW EXECUTE FUNCTION feed_is_unused();

-- Names of the machines that a feed's workers run on, in turn; none: where the Supervisor is.
ALTER TABLE feeds ADD COLUMN nodes jsonb NOT NULL DEFAULT '[]';
