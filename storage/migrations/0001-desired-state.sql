-- What should be: people, accounts, feeds, strategies, algos, machines, limits; and who changed what.
-- Times are UTC nanoseconds.  Rows carry a generation that rises with every change.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'table % is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'QD003';
END
$$;

CREATE TABLE desired_version (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL
);
INSERT INTO desired_version (version) VALUES (0);

CREATE TABLE users (
    id text PRIMARY KEY,
    roles jsonb NOT NULL,
    created_at bigint NOT NULL,
    generation bigint NOT NULL
);

CREATE TABLE accounts (
    id text PRIMARY KEY,
    "user" text NOT NULL REFERENCES users (id),
    connector text NOT NULL,
    settings jsonb NOT NULL,
    enabled boolean NOT NULL,
    created_at bigint NOT NULL,
    generation bigint NOT NULL
);
CREATE INDEX accounts_of_user ON accounts ("user");

CREATE TABLE feeds (
    id text PRIMARY KEY,
    provider text NOT NULL,
    settings jsonb NOT NULL,
    channels jsonb NOT NULL,
    workers integer NOT NULL CHECK (workers > 0),
    instruments jsonb NOT NULL,
    created_at bigint NOT NULL,
    enabled boolean NOT NULL,
    generation bigint NOT NULL
);

CREATE TABLE strategies (
    name text PRIMARY KEY,
    version text NOT NULL,
    entry text NOT NULL,
    source text NOT NULL,
    schema jsonb NOT NULL,
    created_at bigint NOT NULL
);

CREATE TABLE algos (
    id text PRIMARY KEY,
    "user" text NOT NULL REFERENCES users (id),
    account text NOT NULL REFERENCES accounts (id),
    strategy text NOT NULL REFERENCES strategies (name),
    parameters jsonb NOT NULL,
    instruments jsonb NOT NULL,
    feed text NOT NULL REFERENCES feeds (id),
    node text NOT NULL,
    want text NOT NULL CHECK (want IN ('running', 'stopped')),
    state text NOT NULL,
    reason text NOT NULL,
    epoch bigint NOT NULL CHECK (epoch >= 0),
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    generation bigint NOT NULL
);
CREATE INDEX algos_of_account ON algos (account);

CREATE TABLE nodes (
    name text PRIMARY KEY,
    labels jsonb NOT NULL,
    registered_at bigint NOT NULL,
    cordoned boolean NOT NULL,
    generation bigint NOT NULL
);

-- Every version of every limit; the highest version of a (scope, kind, instrument) is the one in force.
CREATE TABLE limits (
    scope text NOT NULL,
    kind text NOT NULL,
    instrument text NOT NULL,
    version bigint NOT NULL,
    value numeric CHECK (value <> 'NaN'),
    changed_at bigint NOT NULL,
    changed_by text NOT NULL,
    PRIMARY KEY (scope, kind, instrument, version)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON limits
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE audit (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at bigint NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    before jsonb,
    after jsonb
);
CREATE INDEX audit_of_subject ON audit (subject, number);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- `number` stands for the instrument in tick arrays and never changes.
CREATE TABLE instruments (
    number integer GENERATED ALWAYS AS IDENTITY (MINVALUE 1 MAXVALUE 2147483647) UNIQUE,
    id text PRIMARY KEY,
    provider_symbol text NOT NULL,
    provider text NOT NULL,
    tick_size numeric NOT NULL,
    lot_size numeric NOT NULL,
    currency text NOT NULL,
    multiplier numeric NOT NULL,
    min_quantity numeric NOT NULL,
    min_notional numeric NOT NULL,
    calendar text NOT NULL,
    description text NOT NULL
);
CREATE INDEX instruments_of_provider ON instruments (provider);

CREATE TABLE api_keys (
    id text PRIMARY KEY,
    "user" text NOT NULL REFERENCES users (id),
    roles jsonb NOT NULL,
    label text NOT NULL,
    sha256 bytea NOT NULL UNIQUE,
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint
);

CREATE TABLE secrets (
    name text PRIMARY KEY,
    sealed bytea NOT NULL,
    updated_at bigint NOT NULL
);
