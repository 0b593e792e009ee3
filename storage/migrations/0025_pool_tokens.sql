-- Tokens that any number of machines can join with: each machine is then given one of its own.
-- Id of the pool's token; that token's own names itself; '' for a token of one machine.
ALTER TABLE join_tokens ADD COLUMN pool text NOT NULL DEFAULT '';
