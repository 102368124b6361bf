-- The organisation and the installation: who may join, from where, how much, on which chains, and what was used.

-- An invitation to join an organisation. Only the SHA-256 of its token is here, so a dump joins nobody. It goes when it is
-- accepted, replaced (one for each address and organisation) or withdrawn.
CREATE TABLE invitations (
    id          uuid PRIMARY KEY,
    org_id      uuid NOT NULL REFERENCES organisations,
    email       text NOT NULL CHECK (email = lower(email) AND char_length(email) BETWEEN 3 AND 320),
    role        text NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    token_hash  bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    -- Who invited: what they may not give any more when it is accepted is not given. NULL: the operator, at the machine.
    invited_by  uuid REFERENCES users,
    expires_at  timestamptz NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (org_id, email)
);

-- From which addresses an organisation's humans and agents may come. A network is kept as Postgres understands one, without host bits.
CREATE TABLE ip_rules (
    id          uuid PRIMARY KEY,
    org_id      uuid NOT NULL REFERENCES organisations,
    rule_type   text NOT NULL CHECK (rule_type IN ('allow', 'deny')),
    network     cidr NOT NULL,
    label       text,
    applies_to  text NOT NULL CHECK (applies_to IN ('all', 'humans', 'agents')),
    created_by  uuid NOT NULL REFERENCES users,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ip_rules_by_org ON ip_rules (org_id, created_at, id);

-- How much an organisation may have. NULL is the default of this version. The row is made when it is first needed, and is what
-- creations hold while they count: not the organisation's own row, which every signature holds shared.
CREATE TABLE organisation_limits (
    org_id    uuid PRIMARY KEY REFERENCES organisations,
    vaults    integer CHECK (vaults >= 0),
    secrets   integer CHECK (secrets >= 0),
    agents    integer CHECK (agents >= 0),
    policies  integer CHECK (policies >= 0),
    members   integer CHECK (members >= 0),
    api_keys  integer CHECK (api_keys >= 0)
);
-- What is counted, where no index led to it by organisation.
CREATE INDEX secrets_by_org ON secrets (org_id) WHERE deleted_at IS NULL;
CREATE INDEX policies_by_org ON policies (org_id);
CREATE INDEX user_api_keys_by_org ON user_api_keys (org_id) WHERE is_active;

-- What platform admins say of chains. A row without the columns from kind to rpc_deadline_ms adds to a chain of chains.toml, which keeps
-- its id, name and ceilings; a row with all of them is a chain of its own. Rows are never removed, so that a name means one chain for
-- good: agents' allowlists and keys' default paths go by name, and what was signed is followed to its end.
CREATE TABLE chains (
    chain_id    bigint PRIMARY KEY CHECK (chain_id > 0),
    name        text NOT NULL UNIQUE,
    is_enabled  boolean NOT NULL DEFAULT true,
    display_name text,
    explorer_url text,
    kind            text CHECK (kind IN ('ethereum', 'op', 'arbitrum', 'zksync')),
    spend_group     text,
    native_currency text,
    is_testnet      boolean,
    max_fee_per_gas_ceiling_wei bigint CHECK (max_fee_per_gas_ceiling_wei > 0),
    max_gas_limit   bigint CHECK (max_gas_limit >= 21000),
    confirmations   bigint CHECK (confirmations >= 1),
    sign_only_ttl_s bigint CHECK (sign_only_ttl_s >= 1),
    block_time_ms   bigint CHECK (block_time_ms >= 1),
    rpc_deadline_ms bigint CHECK (rpc_deadline_ms BETWEEN 1 AND 60000),
    -- The node's URL usually holds an access key: it is sealed as a secret's value is.
    rpc_kek_id      uuid REFERENCES keks,
    rpc_dek_iv      bytea CHECK (octet_length(rpc_dek_iv) = 12),
    rpc_dek_sealed  bytea,
    rpc_nonce       bytea CHECK (octet_length(rpc_nonce) = 12),
    rpc_ciphertext  bytea,
    deleted_at  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(kind, spend_group, native_currency, is_testnet, max_fee_per_gas_ceiling_wei, max_gas_limit, confirmations,
                        sign_only_ttl_s, block_time_ms, rpc_deadline_ms) IN (0, 10)),
    CHECK (kind IS NULL OR display_name IS NOT NULL),
    CHECK (num_nonnulls(rpc_kek_id, rpc_dek_iv, rpc_dek_sealed, rpc_nonce, rpc_ciphertext) IN (0, 5))
);

-- The installation's settings. Which keys there are, and what they mean, the code says.
CREATE TABLE platform_settings (
    key         text PRIMARY KEY,
    value       text NOT NULL,
    updated_by  uuid REFERENCES users,
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- What was used, by month (its first day, UTC). Daemons add what they have counted every few seconds, in one statement for all.
CREATE TABLE usage_counts (
    org_id  uuid NOT NULL REFERENCES organisations,
    month   date NOT NULL,
    kind    text NOT NULL CHECK (kind IN ('requests', 'signatures')),
    count   bigint NOT NULL CHECK (count >= 0),
    PRIMARY KEY (org_id, month, kind)
);

-- What clients may say about going over a plan. There is no plan to go over; it is kept and shown.
ALTER TABLE organisations ADD COLUMN overage_method text CHECK (overage_method IN ('credits', 'x402'));
