-- Logs of algos bear fields and their owner, and stay when the algo goes.
ALTER TABLE algo_log DROP CONSTRAINT algo_log_algo_fkey;
ALTER TABLE algo_log ADD COLUMN fields jsonb NOT NULL DEFAULT '{}', ADD COLUMN "user" text NOT NULL DEFAULT '';
UPDATE algo_log SET "user" = algos."user" FROM algos WHERE algos.id = algo_log.algo;
ALTER TABLE algo_log ALTER COLUMN "user" DROP DEFAULT;
CREATE INDEX algo_log_by_time ON algo_log (at);
