-- Who there is: organisations, humans, agents, and how they prove it.
-- Plain SQL only: it must run behind pgbouncer and on any Postgres of version 14 or later.

-- The boundary that nothing crosses. Every other table carries org_id, and every query names it.
CREATE TABLE organisations (
    id          uuid PRIMARY KEY,
    name        text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255),
    -- Every intent is simulated before it is signed, whatever the request says.
    require_simulation boolean NOT NULL DEFAULT false,
    -- Emptying a restriction (which lifts it) needs "confirm_unrestricted": true.
    guardrail_widening_requires_confirm boolean NOT NULL DEFAULT false,
    -- A frozen organisation signs nothing new; what is signed is still followed to its end.
    frozen_at   timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    id           uuid PRIMARY KEY,
    org_id       uuid NOT NULL REFERENCES organisations,
    email        text NOT NULL CHECK (email = lower(email) AND char_length(email) BETWEEN 3 AND 320),
    display_name text,
    role         text NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    -- argon2id in PHC form; NULL until a password is set.
    password_hash text,
    platform_admin boolean NOT NULL DEFAULT false,
    is_active    boolean NOT NULL DEFAULT true,
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- One account per address in the installation: a login names no organisation.
    UNIQUE (email)
);
CREATE INDEX users_by_org ON users (org_id, created_at);

-- Personal keys (1ck_…). The key is 256 random bits, so SHA-256 is enough; the prefix is the indexed look-up.
CREATE TABLE user_api_keys (
    id           uuid PRIMARY KEY,
    org_id       uuid NOT NULL REFERENCES organisations,
    user_id      uuid NOT NULL REFERENCES users,
    name         text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255),
    key_prefix   text NOT NULL UNIQUE,
    key_hash     bytea NOT NULL CHECK (octet_length(key_hash) = 32),
    scopes       text[] NOT NULL DEFAULT '{}',
    is_active    boolean NOT NULL DEFAULT true,
    expires_at   timestamptz,
    last_used_at timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX user_api_keys_by_user ON user_api_keys (user_id, created_at);

CREATE TABLE agents (
    id           uuid PRIMARY KEY,
    org_id       uuid NOT NULL REFERENCES organisations,
    name         text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255),
    description  text,
    created_by   uuid NOT NULL REFERENCES users,
    auth_method  text NOT NULL DEFAULT 'api_key' CHECK (auth_method IN ('api_key', 'mtls', 'oidc_client_credentials')),
    key_prefix   text UNIQUE,
    key_hash     bytea CHECK (octet_length(key_hash) = 32),
    client_cert_fingerprint text,
    oidc_issuer  text,
    oidc_client_id text,
    scopes       text[] NOT NULL DEFAULT '{}',
    vault_ids    uuid[] NOT NULL DEFAULT '{}',
    token_ttl_seconds integer CHECK (token_ttl_seconds BETWEEN 120 AND 86400),
    is_active    boolean NOT NULL DEFAULT true,
    expires_at   timestamptz,
    frozen_at    timestamptz,
    -- Deleted agents keep their row: transactions and audit rows point at it.
    deleted_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),

    -- Guardrails. NULL or empty means unrestricted, as the wire contract has it. Only humans change them.
    intents_api_enabled boolean NOT NULL DEFAULT false,
    -- 20-byte addresses: a list of texts would not match another spelling of the same address.
    tx_to_allowlist     bytea[] NOT NULL DEFAULT '{}',
    tx_allowed_chains   text[] NOT NULL DEFAULT '{}',
    tx_max_value_wei    numeric(78, 0) CHECK (tx_max_value_wei >= 0),
    tx_daily_limit_wei  numeric(78, 0) CHECK (tx_daily_limit_wei >= 0),
    -- The fee a transaction could cost at most (gas limit × fee cap): a cap on value alone is passed by a zero-value
    -- transaction with a one-ether fee.
    tx_max_fee_wei      numeric(78, 0) CHECK (tx_max_fee_wei >= 0),
    tx_daily_fee_limit_wei numeric(78, 0) CHECK (tx_daily_fee_limit_wei >= 0),
    tx_max_gas_limit    bigint CHECK (tx_max_gas_limit > 0),
    -- Stored and echoed for other services of the same clients; nothing here acts on them.
    shroud_enabled boolean NOT NULL DEFAULT false,
    shroud_config  jsonb
);
CREATE INDEX agents_by_org ON agents (org_id, created_at);

-- Tokens that were revoked before their expiry, by jti. Rows go once the token would have expired anyway.
CREATE TABLE revoked_tokens (
    jti        uuid PRIMARY KEY,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz NOT NULL DEFAULT now()
);
