-- Which instruments of a feed have a second provider: {instrument: {"feed": …, "instrument": …}}, the latter of that feed.
ALTER TABLE feeds ADD COLUMN seconds jsonb NOT NULL DEFAULT '{}';

-- As with a foreign key: a second is of a feed that is there, and that feed stays while it is one, unless it is deleted by
-- force.  Changes of desired state queue up behind one another, so nothing can come between look and act.
CREATE FUNCTION seconds_are_of_feeds() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    missing text;
BEGIN
    SELECT min(named.value ->> 'feed') INTO missing FROM jsonb_each(NEW.seconds) AS named
        WHERE NOT EXISTS (SELECT FROM feeds WHERE id = named.value ->> 'feed');
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'there is no feed %', missing USING
            ERRCODE = 'foreign_key_violation', TABLE = 'feeds', CONSTRAINT = 'feeds_feed_fkey',
            DETAIL = format('Key (feed)=(%s) is not present in table "feeds".', missing);
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER seconds_of_a_new_feed BEFORE INSERT ON feeds
    FOR EACH ROW WHEN (NEW.seconds <> '{}') EXECUTE FUNCTION seconds_are_of_feeds();
CREATE TRIGGER other_seconds_of_a_feed BEFORE UPDATE ON feeds
    FOR EACH ROW WHEN (NEW.seconds <> '{}' AND NEW.seconds IS DISTINCT FROM OLD.seconds)
    EXECUTE FUNCTION seconds_are_of_feeds();

CREATE FUNCTION feed_is_no_second() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('quarterdeck.forced', true) IS DISTINCT FROM OLD.id
        AND EXISTS (
            SELECT FROM feeds, jsonb_each(feeds.seconds) AS named
            WHERE feeds.id <> OLD.id AND named.value ->> 'feed' = OLD.id
        )
    THEN
        RAISE EXCEPTION 'feed % stands by for others', OLD.id USING
            ERRCODE = 'foreign_key_violation', TABLE = 'feeds';
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER feed_is_no_second BEFORE DELETE ON feeds FOR EACH ROW EXECUTE FUNCTION feed_is_no_second();
