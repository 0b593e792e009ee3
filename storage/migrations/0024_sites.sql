-- Where an account's connection runs: labels of its machine; '' for the head.
ALTER TABLE accounts ADD COLUMN selector text NOT NULL DEFAULT '';
