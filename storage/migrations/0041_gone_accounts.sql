-- Whose each account was that was deleted: its history stays under its name, so nobody else may have that name.
CREATE TABLE gone_accounts (
    id text PRIMARY KEY,
    "user" text NOT NULL,
    gone_at bigint NOT NULL
);
INSERT INTO table_rights VALUES ('gone_accounts', 'INSERT, UPDATE');

CREATE FUNCTION keep_account_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gone_accounts VALUES (OLD.id, OLD."user", extract(epoch FROM clock_timestamp()) * 1000000000)
    ON CONFLICT (id) DO UPDATE SET "user" = excluded."user", gone_at = excluded.gone_at;
    RETURN OLD;
END
$$;
CREATE TRIGGER owner_kept BEFORE DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION keep_account_owner();
