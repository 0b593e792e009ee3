-- Algos are paused, stopped as chosen and given parameters while they run; labels for commands to many.
ALTER TABLE algos
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN restart_generation bigint NOT NULL DEFAULT 1,
    ADD COLUMN paused_by text NOT NULL DEFAULT '',
    ADD COLUMN paused_at bigint NOT NULL DEFAULT 0,
    ADD COLUMN paused_because text NOT NULL DEFAULT '',
    ADD COLUMN stop_orders text NOT NULL DEFAULT 'cancel' CHECK (stop_orders IN ('cancel', 'leave')),
    ADD COLUMN stop_position text NOT NULL DEFAULT 'keep' CHECK (stop_position IN ('keep', 'flatten')),
    ADD COLUMN flatten text NOT NULL DEFAULT '';
UPDATE algos SET restart_generation = generation;

-- A kill that is part of stopping an algo with its position closed: it is no throw of the switch.
ALTER TABLE kills ADD COLUMN of_stop boolean NOT NULL DEFAULT false;
