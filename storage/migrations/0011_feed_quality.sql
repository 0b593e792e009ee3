-- How strict a feed is with ticks and how patient with silence, and the gaps that its streams had.

-- `instrument` '': of the whole feed.  Only what was set; the defaults are the code's.
CREATE TABLE feed_tunings (
    feed text NOT NULL REFERENCES feeds (id) ON DELETE CASCADE,
    instrument text NOT NULL,
    filter jsonb NOT NULL,
    freshness jsonb NOT NULL,
    changed_at bigint NOT NULL,
    changed_by text NOT NULL,
    PRIMARY KEY (feed, instrument)
);

-- Times are UTC nanoseconds of receipt: of the last tick before, and of the first one after.
CREATE TABLE feed_gaps (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    feed text NOT NULL REFERENCES feeds (id) ON DELETE CASCADE,
    shard integer NOT NULL,
    instrument text NOT NULL,
    since bigint NOT NULL,
    until bigint NOT NULL,
    reason text NOT NULL,
    -- waiting; filled: all of it; partly: as far as the provider told; failed: nothing, with the reason in detail
    state text NOT NULL,
    trades integer NOT NULL DEFAULT 0,
    bars integer NOT NULL DEFAULT 0,
    detail text NOT NULL DEFAULT '',
    changed_at bigint NOT NULL
);
CREATE INDEX feed_gaps_of_instrument ON feed_gaps (feed, instrument, until);
CREATE INDEX feed_gaps_by_time ON feed_gaps (feed, until);
