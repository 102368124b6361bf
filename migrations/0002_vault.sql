-- What is kept: the HSM's own keys by reference, vaults, secrets, signing keys, and who may reach them.

-- Keys on the token, by reference (CKA_ID). seal wraps signing keys, data seals secrets' DEKs, mac binds wrapped blobs to
-- their rows, jwt signs tokens. Each purpose is one key: a key that could both unwrap and decrypt gives signing keys away.
CREATE TABLE keks (
    id         uuid PRIMARY KEY,
    purpose    text NOT NULL CHECK (purpose IN ('seal', 'data', 'mac', 'jwt')),
    state      text NOT NULL CHECK (state IN ('adding', 'active', 'retiring', 'retired')),
    cka_id     bytea NOT NULL CHECK (octet_length(cka_id) = 16),
    mechanism  bigint NOT NULL,
    public_key bytea,
    -- Something this key made when it was created. It must check out at every start: a token with another key of the same
    -- label would otherwise be noticed only when the first secret fails to open.
    canary     jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX keks_one_active ON keks (purpose) WHERE state = 'active';

CREATE TABLE vaults (
    id          uuid PRIMARY KEY,
    org_id      uuid NOT NULL REFERENCES organisations,
    name        text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255),
    description text,
    created_by  uuid NOT NULL,
    created_by_type text NOT NULL CHECK (created_by_type IN ('user', 'agent')),
    deleted_at  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX vaults_name ON vaults (org_id, name) WHERE deleted_at IS NULL;

-- A path in a vault. The id is stable over versions: shares point at it.
CREATE TABLE secrets (
    id          uuid PRIMARY KEY,
    org_id      uuid NOT NULL REFERENCES organisations,
    vault_id    uuid NOT NULL REFERENCES vaults,
    path        text NOT NULL CHECK (char_length(path) BETWEEN 1 AND 1024),
    version     integer NOT NULL CHECK (version > 0),
    -- Of the current version; kept here so that a list needs one table.
    type        text NOT NULL,
    metadata    jsonb NOT NULL DEFAULT '{}',
    rotation_policy jsonb,
    expires_at  timestamptz,
    max_access_count integer CHECK (max_access_count > 0),
    access_count integer NOT NULL DEFAULT 0 CHECK (access_count >= 0),
    -- True once any version was private_key or ssh_key: a rotation to another type must not open the read gate.
    was_key_type boolean NOT NULL DEFAULT false,
    deleted_at  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (vault_id, path)
);

-- One row per version. The body is sealed under its own DEK, and the DEK under the data KEK in the HSM, both with the
-- organisation, vault, path, version and type as associated data: a row moved elsewhere does not open.
CREATE TABLE secret_versions (
    secret_id   uuid NOT NULL REFERENCES secrets,
    version     integer NOT NULL CHECK (version > 0),
    type        text NOT NULL,
    kek_id      uuid REFERENCES keks,
    dek_iv      bytea CHECK (octet_length(dek_iv) = 12),
    dek_sealed  bytea,
    nonce       bytea CHECK (octet_length(nonce) = 12),
    ciphertext  bytea,
    -- A signing key that lives in the HSM has no body here.
    key_id      uuid,
    created_by  uuid NOT NULL,
    created_by_type text NOT NULL CHECK (created_by_type IN ('user', 'agent')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (secret_id, version),
    CHECK ((ciphertext IS NULL) = (kek_id IS NULL)),
    CHECK (ciphertext IS NOT NULL OR key_id IS NOT NULL)
);

-- Signing keys. wrapped: the blob is the key, encrypted by the HSM's seal key; token: the key object stays on the token and
-- only its random CKA_ID is here. The MAC is made in the HSM over blob, context and public key and is checked before unwrapping.
CREATE TABLE signing_keys (
    id          uuid PRIMARY KEY,
    org_id      uuid NOT NULL REFERENCES organisations,
    vault_id    uuid NOT NULL REFERENCES vaults,
    secret_id   uuid NOT NULL REFERENCES secrets,
    path        text NOT NULL,
    version     integer NOT NULL CHECK (version > 0),
    address     bytea NOT NULL CHECK (octet_length(address) = 20),
    public_key  bytea NOT NULL CHECK (octet_length(public_key) = 65),
    custody     text NOT NULL CHECK (custody IN ('wrapped', 'token')),
    blob        bytea,
    mechanism   bigint,
    kek_id      uuid REFERENCES keks,
    cka_id      bytea UNIQUE CHECK (octet_length(cka_id) = 16),
    mac_kek_id  uuid NOT NULL REFERENCES keks,
    mac         bytea NOT NULL CHECK (octet_length(mac) = 32),
    -- superseded keys sign no new intent, but are kept until every slot of theirs is final.
    state       text NOT NULL CHECK (state IN ('active', 'superseded', 'destroyed')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    superseded_at timestamptz,
    CHECK ((custody = 'wrapped') = (blob IS NOT NULL AND mechanism IS NOT NULL AND kek_id IS NOT NULL)),
    CHECK ((custody = 'token') = (cka_id IS NOT NULL)),
    UNIQUE (secret_id, version)
);
CREATE UNIQUE INDEX signing_keys_one_active ON signing_keys (secret_id) WHERE state = 'active';
CREATE INDEX signing_keys_by_path ON signing_keys (org_id, path) WHERE state = 'active';
ALTER TABLE secret_versions ADD FOREIGN KEY (key_id) REFERENCES signing_keys DEFERRABLE INITIALLY DEFERRED;

-- Access is denied unless a row here (or ownership) allows it.
CREATE TABLE policies (
    id          uuid PRIMARY KEY,
    org_id      uuid NOT NULL REFERENCES organisations,
    vault_id    uuid NOT NULL REFERENCES vaults,
    -- Whole-segment glob: * is one segment, ** any number.
    secret_path_pattern text NOT NULL,
    principal_type text NOT NULL CHECK (principal_type IN ('user', 'agent')),
    principal_id uuid NOT NULL,
    permissions text[] NOT NULL CHECK (cardinality(permissions) > 0 AND permissions <@ ARRAY['read', 'write', 'delete']),
    conditions  jsonb,
    expires_at  timestamptz,
    created_by  uuid NOT NULL,
    created_by_type text NOT NULL CHECK (created_by_type IN ('user', 'agent')),
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX policies_by_principal ON policies (principal_type, principal_id, vault_id);
CREATE INDEX policies_by_vault ON policies (vault_id, created_at);
