-- The kill switch: what was thrown, by whom, and which session did not answer then.

CREATE TABLE kills (
    id text PRIMARY KEY,
    scope text NOT NULL,
    flatten boolean NOT NULL,
    reason text NOT NULL,
    at bigint NOT NULL,
    by text NOT NULL,
    -- The limit that halts the scope was set at this time, by this kill unless somebody had set it before.
    halted_at bigint NOT NULL,
    sets_halt boolean NOT NULL,
    -- Sessions that did not answer when it was thrown: they act on it as soon as they can.
    silent jsonb NOT NULL DEFAULT '[]',
    lifted_at bigint NOT NULL DEFAULT 0,
    lifted_by text NOT NULL DEFAULT ''
);
CREATE INDEX kills_in_force ON kills (at) WHERE lifted_at = 0;
CREATE INDEX order_events_of_kill ON order_events (cause) WHERE cause LIKE 'kill-%';
