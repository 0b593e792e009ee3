-- How machines were: one row a minute each, kept for a day.  `at`: when the minute began, by this database's clock, so
-- that neither a wrong clock nor an agent that begins anew makes a second row or deletes what is young.
CREATE TABLE node_history (
    node text NOT NULL,
    at bigint NOT NULL,
    metrics jsonb NOT NULL,
    PRIMARY KEY (node, at)
);
CREATE INDEX node_history_by_age ON node_history (at);
