-- Who may come in, and to what: passwords, second factors, signed-in sessions, lock-outs, grants, scoped keys.
-- Times are UTC nanoseconds.  Of passwords, recovery codes and tokens only hashes are kept; the secrets of second factors
-- are in `secrets`, encrypted.

ALTER TABLE users ADD COLUMN enabled boolean NOT NULL DEFAULT true;

CREATE TABLE passwords (
    "user" text PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    hash text NOT NULL,
    -- Made by somebody else: it opens nothing but its own change, until `expires_at` (0: for ever).
    one_time boolean NOT NULL,
    expires_at bigint NOT NULL,
    changed_at bigint NOT NULL
);

CREATE TABLE second_factors (
    "user" text PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    enrolled_at bigint NOT NULL,
    -- The 30 seconds of the last code that was taken: no code is taken twice.
    last_step bigint NOT NULL
);

CREATE TABLE recovery_codes (
    "user" text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    sha256 bytea NOT NULL,
    -- 0: not yet.
    used_at bigint NOT NULL DEFAULT 0,
    PRIMARY KEY ("user", sha256)
);

CREATE TABLE panel_sessions (
    id text PRIMARY KEY,
    "user" text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- Of the token in the cookie.
    sha256 bytea NOT NULL UNIQUE,
    code_passed boolean NOT NULL DEFAULT false,
    -- A second factor was shown until then for what asks for a fresh one; 0: it was not.
    fresh_until bigint NOT NULL DEFAULT 0,
    created_at bigint NOT NULL,
    seen_at bigint NOT NULL,
    ends_at bigint NOT NULL,
    address text NOT NULL,
    agent text NOT NULL,
    -- 0: not yet.
    ended_at bigint NOT NULL DEFAULT 0,
    ended_because text NOT NULL DEFAULT ''
);
CREATE INDEX panel_sessions_of_user ON panel_sessions ("user", ended_at);

-- Completed sign-ins: what is usual for somebody is learnt from them.
CREATE TABLE sign_ins (
    "user" text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    at bigint NOT NULL,
    network text NOT NULL
);
CREATE INDEX sign_ins_of_user ON sign_ins ("user", at);

-- Attempts to sign in by whom and from where, both as digests where somebody unknown chose the text.
CREATE TABLE login_attempts (
    subject text PRIMARY KEY,
    failures integer NOT NULL,
    last_at bigint NOT NULL,
    locked_until bigint NOT NULL
);
CREATE INDEX login_attempts_by_age ON login_attempts (last_at);

CREATE TABLE grants (
    account text NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    "user" text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    level text NOT NULL CHECK (level IN ('view', 'trade')),
    granted_at bigint NOT NULL,
    granted_by text NOT NULL,
    PRIMARY KEY (account, "user")
);
CREATE INDEX grants_of_user ON grants ("user");

-- null: all that its roles allow, all accounts that its user reaches.
ALTER TABLE api_keys ADD COLUMN rights jsonb, ADD COLUMN accounts jsonb;
