-- Versions of secrets that can be read, disabled and destroyed each for itself, and customer-managed encryption.

-- SHA-256 of the key that this vault's clients encrypt values with before they send them; NULL: they do not. The key itself is
-- never stored here: it comes with a request that rotates it, and is forgotten with it.
ALTER TABLE vaults ADD COLUMN cmek_fingerprint text CHECK (cmek_fingerprint ~ '^[0-9a-f]{64}$');

-- Every version keeps its own limits: were they the secret's, a new version would open an old one again that had expired or had
-- been read as often as it may be.
ALTER TABLE secret_versions
    ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN max_access_count integer CHECK (max_access_count > 0),
    ADD COLUMN access_count integer NOT NULL DEFAULT 0 CHECK (access_count >= 0),
    -- Not read any more, by a human's or agent's wish. The sealed body stays.
    ADD COLUMN disabled_at timestamptz,
    -- The body is gone: more versions came after it than are kept.
    ADD COLUMN destroyed_at timestamptz,
    -- The key that the client had encrypted the value with, beneath our own envelope.
    ADD COLUMN cmek_fingerprint text CHECK (cmek_fingerprint ~ '^[0-9a-f]{64}$');
UPDATE secret_versions v
    SET metadata = s.metadata, expires_at = s.expires_at, max_access_count = s.max_access_count, access_count = s.access_count
    FROM secrets s WHERE s.id = v.secret_id AND s.version = v.version;
-- What limits earlier versions had is not known any more, and nobody could read them until now.
UPDATE secret_versions v SET disabled_at = now() FROM secrets s WHERE s.id = v.secret_id AND v.version < s.version;
ALTER TABLE secrets DROP COLUMN max_access_count, DROP COLUMN access_count;

-- A version has a body, or a key in the HSM, or had a body.
ALTER TABLE secret_versions DROP CONSTRAINT secret_versions_check1;
ALTER TABLE secret_versions ADD CONSTRAINT secret_versions_kept
    CHECK (ciphertext IS NOT NULL OR key_id IS NOT NULL OR destroyed_at IS NOT NULL);
ALTER TABLE secret_versions ADD CONSTRAINT secret_versions_destroyed
    CHECK (destroyed_at IS NULL OR (ciphertext IS NULL AND dek_sealed IS NULL));

-- What a rotation of a customer's key looks for.
CREATE INDEX secret_versions_by_cmek ON secret_versions (cmek_fingerprint, secret_id, version)
    WHERE cmek_fingerprint IS NOT NULL AND disabled_at IS NULL;
-- Lists go by path, byte by byte, page by page.
CREATE INDEX secrets_by_path ON secrets (vault_id, path COLLATE "C") WHERE deleted_at IS NULL;
CREATE INDEX vaults_by_age ON vaults (org_id, created_at, id) WHERE deleted_at IS NULL;

-- Rotations of customers' keys. The keys are in the memory of the daemon that runs one: when it dies the lease ends, the rotation is
-- failed, and another one with the same keys goes on from each value's own fingerprint.
CREATE TABLE cmek_rotations (
    id          uuid PRIMARY KEY,
    org_id      uuid NOT NULL REFERENCES organisations,
    vault_id    uuid NOT NULL REFERENCES vaults,
    old_fingerprint text NOT NULL CHECK (old_fingerprint ~ '^[0-9a-f]{64}$'),
    new_fingerprint text NOT NULL CHECK (new_fingerprint ~ '^[0-9a-f]{64}$'),
    state       text NOT NULL CHECK (state IN ('pending', 'running', 'completed', 'failed')),
    -- Values under the old key when it began, and how many of them, and of those stored since, are under the new one now.
    total       bigint NOT NULL CHECK (total >= 0),
    processed   bigint NOT NULL DEFAULT 0 CHECK (processed >= 0),
    error       text,
    -- Moved on with every batch; whoever finds it past while the rotation is not over writes it down as failed.
    lease_until timestamptz NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    completed_at timestamptz,
    CHECK ((state IN ('completed', 'failed')) = (completed_at IS NOT NULL)),
    CHECK ((state = 'failed') = (error IS NOT NULL))
);
-- One at a time in a vault.
CREATE UNIQUE INDEX cmek_rotations_one_live ON cmek_rotations (vault_id) WHERE state IN ('pending', 'running');
