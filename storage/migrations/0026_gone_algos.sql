-- The newest epoch of each algo that was deleted, and one more: what is left of its last incarnation is refused from
-- then on, and an algo that is made under the same name goes on numbering from there.
CREATE TABLE gone_algos (
    id text PRIMARY KEY,
    "user" text NOT NULL,
    epoch bigint NOT NULL
);
CREATE INDEX gone_algos_of_user ON gone_algos ("user");
INSERT INTO table_rights VALUES ('gone_algos', 'INSERT, UPDATE');

CREATE FUNCTION keep_algo_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.epoch := greatest(NEW.epoch, (SELECT epoch FROM gone_algos WHERE id = NEW.id));
        RETURN NEW;
    END IF;
    INSERT INTO gone_algos VALUES (OLD.id, OLD."user", OLD.epoch + 1)
    ON CONFLICT (id) DO UPDATE SET "user" = excluded."user", epoch = greatest(gone_algos.epoch, excluded.epoch);
    RETURN OLD;
END
$$;
CREATE TRIGGER epoch_kept BEFORE INSERT OR DELETE ON algos FOR EACH ROW EXECUTE FUNCTION keep_algo_epoch();
