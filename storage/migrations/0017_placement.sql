-- Where algos may run, beyond a machine's name; machines that are being emptied.
ALTER TABLE algos ADD COLUMN placement jsonb NOT NULL DEFAULT '{}', ADD COLUMN placed text NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN draining boolean NOT NULL DEFAULT false;
