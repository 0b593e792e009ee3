-- When trading counts as unusual: what was set for the deck (account null) and, on top of that, for accounts.
CREATE TABLE surveillance_terms (
    account text UNIQUE NULLS NOT DISTINCT REFERENCES accounts ON DELETE CASCADE,
    terms jsonb NOT NULL,
    changed_at bigint NOT NULL,
    changed_by text NOT NULL
);
