-- One-time tokens with which machines join.  Once used, a token is what its machine proves itself with.
CREATE TABLE join_tokens (
    id text PRIMARY KEY,
    sha256 bytea NOT NULL UNIQUE,
    -- '' lets the machine say it.
    node text NOT NULL,
    labels jsonb NOT NULL,
    with_secrets boolean NOT NULL,
    created_by text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    -- 0: not yet.
    used_at bigint NOT NULL DEFAULT 0,
    revoked_at bigint NOT NULL DEFAULT 0
);
CREATE INDEX join_tokens_of_node ON join_tokens (node);
INSERT INTO table_rights VALUES ('join_tokens', 'INSERT, UPDATE');
