-- Strategies have versions, known by their content; algos pin one.
--
-- Content (a submitted file; the wheels that its requirements were resolved to) is kept in parts, once for each digest.
-- A part is never changed.  `wanted_at`: when somebody last put it; what no version names is deleted some time after.
CREATE TABLE artefacts (
    sha256 text PRIMARY KEY CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size bigint NOT NULL CHECK (size >= 0),
    wanted_at bigint NOT NULL
);
CREATE TABLE artefact_parts (
    sha256 text NOT NULL REFERENCES artefacts (sha256) ON DELETE CASCADE,
    part integer NOT NULL CHECK (part >= 0),
    bytes bytea NOT NULL,
    PRIMARY KEY (sha256, part)
);
-- It is compressed already, mostly.
ALTER TABLE artefact_parts ALTER COLUMN bytes SET STORAGE EXTERNAL;
INSERT INTO table_rights VALUES ('artefact_parts', 'INSERT, DELETE');

CREATE TABLE strategy_versions (
    strategy text NOT NULL REFERENCES strategies (name) ON DELETE CASCADE,
    version text NOT NULL,
    -- Rises with every version of any strategy: which one is newer.
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    kind text NOT NULL CHECK (kind IN ('file', 'zip', 'wheel')),
    file_name text NOT NULL,
    artefact text NOT NULL REFERENCES artefacts (sha256),
    size bigint NOT NULL,
    -- As asked for ("" where it was left to be found), and as found.
    asked_entry text NOT NULL,
    entry text NOT NULL,
    schema jsonb NOT NULL,
    requirements jsonb NOT NULL,
    pins jsonb NOT NULL,
    checked jsonb NOT NULL,
    submitted_by text NOT NULL,
    submitted_at bigint NOT NULL,
    -- 0: it is not deprecated.
    deprecated_at bigint NOT NULL DEFAULT 0,
    deprecated_by text NOT NULL DEFAULT '',
    deprecated_because text NOT NULL DEFAULT '',
    PRIMARY KEY (strategy, version)
);

-- Which artefacts a version needs besides its own: the wheels of its requirements.
CREATE TABLE strategy_wheels (
    strategy text NOT NULL,
    version text NOT NULL,
    artefact text NOT NULL REFERENCES artefacts (sha256),
    PRIMARY KEY (strategy, version, artefact),
    FOREIGN KEY (strategy, version) REFERENCES strategy_versions (strategy, version) ON DELETE CASCADE
);

-- What was submitted so far: one module each, its version the digest of its text.
INSERT INTO artefacts (sha256, size, wanted_at)
SELECT DISTINCT ON (version) version, octet_length(convert_to(source, 'UTF8')), created_at
FROM strategies WHERE source <> '';
INSERT INTO artefact_parts (sha256, part, bytes)
SELECT DISTINCT ON (version) version, 0, convert_to(source, 'UTF8') FROM strategies WHERE source <> '';
INSERT INTO strategy_versions (strategy, version, kind, file_name, artefact, size, asked_entry, entry, schema,
    requirements, pins, checked, submitted_by, submitted_at)
SELECT name, version, 'file', name || '.py', version, octet_length(convert_to(source, 'UTF8')), '', entry, schema, '[]',
    '[]', '{}',
    coalesce((SELECT actor FROM audit WHERE action = 'create_strategy' AND subject = name ORDER BY number DESC LIMIT 1),
        ''),
    created_at
FROM strategies WHERE source <> '' ORDER BY created_at, name;

-- `version`, `entry` and `schema` are those of the version that a new algo takes: of the newest that is not deprecated,
-- '' where there is none; of a built-in one those of this release.
ALTER TABLE strategies ADD COLUMN builtin boolean NOT NULL DEFAULT false;
UPDATE strategies SET builtin = source = '';
ALTER TABLE strategies DROP COLUMN source;
ALTER TABLE strategies ALTER COLUMN builtin DROP DEFAULT;

-- '' : the strategy is a built-in one and comes with the release.  `previous`: the version and parameters that it had
-- before it was upgraded; {} where it was not.
ALTER TABLE algos ADD COLUMN strategy_version text NOT NULL DEFAULT '';
ALTER TABLE algos ADD COLUMN previous jsonb NOT NULL DEFAULT '{}';
UPDATE algos SET strategy_version = s.version FROM strategies s WHERE s.name = algos.strategy AND NOT s.builtin;
ALTER TABLE algos ADD COLUMN pinned text GENERATED ALWAYS AS (nullif(strategy_version, '')) STORED;
ALTER TABLE algos ADD CONSTRAINT algos_strategy_version_fkey
    FOREIGN KEY (strategy, pinned) REFERENCES strategy_versions (strategy, version);
CREATE INDEX algos_of_strategy ON algos (strategy, pinned);
