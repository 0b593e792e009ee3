-- What was open when a kill was thrown: its proof shows what has become of it, whoever took it back.
CREATE TABLE open_at_kill (
    kill text NOT NULL REFERENCES kills (id),
    account text NOT NULL,
    client_order_id text NOT NULL,
    PRIMARY KEY (kill, account, client_order_id)
);
INSERT INTO table_rights VALUES ('open_at_kill', 'INSERT');
