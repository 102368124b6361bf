-- Intents and what becomes of them. The words: a lane is one address on one chain; a slot is one nonce of a lane; an attempt
-- is one signed transaction for a slot (all attempts of a slot exclude each other on chain).

-- What was asked and checked. The life of the transaction is the slot's; an intent without a slot was refused by its simulation.
CREATE TABLE intents (
    id           uuid PRIMARY KEY,
    org_id       uuid NOT NULL REFERENCES organisations,
    agent_id     uuid NOT NULL REFERENCES agents,
    kind         text NOT NULL CHECK (kind IN ('submit', 'sign_only')),
    chain_id     bigint NOT NULL CHECK (chain_id > 0),
    chain        text NOT NULL,
    spend_group  text NOT NULL,
    key_id       uuid REFERENCES signing_keys,
    from_address bytea NOT NULL CHECK (octet_length(from_address) = 20),
    to_address   bytea NOT NULL CHECK (octet_length(to_address) = 20),
    value_wei    numeric(78, 0) NOT NULL CHECK (value_wei >= 0),
    data         bytea NOT NULL DEFAULT '',
    gas_limit    bigint NOT NULL CHECK (gas_limit > 0),
    -- Exactly one of the two fee forms: EIP-155 legacy or EIP-1559.
    gas_price                numeric(78, 0),
    max_fee_per_gas          numeric(78, 0),
    max_priority_fee_per_gas numeric(78, 0),
    -- Hash over everything that is signed but the nonce, taken when it was checked.
    checked_hash bytea NOT NULL CHECK (octet_length(checked_hash) = 32),
    simulation_id     uuid,
    simulation_status text CHECK (simulation_status IN ('success', 'reverted', 'error')),
    simulation_error  text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CHECK ((gas_price IS NULL) <> (max_fee_per_gas IS NULL)),
    CHECK ((max_fee_per_gas IS NULL) = (max_priority_fee_per_gas IS NULL))
);
-- Newest first, by keyset.
CREATE INDEX intents_by_agent ON intents (agent_id, created_at DESC, id DESC);

-- next_nonce is changed only with this row locked FOR UPDATE, in the transaction that stores the signed bytes.
CREATE TABLE lanes (
    chain_id   bigint NOT NULL CHECK (chain_id > 0),
    address    bytea NOT NULL CHECK (octet_length(address) = 20),
    next_nonce bigint NOT NULL DEFAULT 0 CHECK (next_nonce >= 0),
    -- From here on every nonce below next_nonce has a slot. What is below was used before we had the key, or an operator took it as
    -- used when the lane was released.
    first_nonce bigint NOT NULL DEFAULT 0 CHECK (first_nonce >= 0),
    -- Set when the chain and the rows disagree by more than we may resolve ourselves.
    frozen_reason text,
    frozen_at  timestamptz,
    PRIMARY KEY (chain_id, address)
);

CREATE TABLE slots (
    chain_id   bigint NOT NULL,
    address    bytea NOT NULL,
    nonce      bigint NOT NULL CHECK (nonce >= 0),
    -- NULL: the nonce was used, or left out, by somebody else.
    intent_id  uuid UNIQUE REFERENCES intents,
    key_id     uuid REFERENCES signing_keys,
    sign_only  boolean NOT NULL DEFAULT false,
    state      text NOT NULL CHECK (state IN ('signed', 'broadcast', 'mined', 'final', 'foreign')),
    -- How a mined or final slot ended: success, reverted, cancelled (our own no-op took the nonce) or foreign (none of our bytes did).
    outcome    text CHECK (outcome IN ('success', 'reverted', 'cancelled', 'foreign')),
    mined_tx_hash bytea CHECK (octet_length(mined_tx_hash) = 32),
    block_number  bigint,
    block_hash    bytea CHECK (octet_length(block_hash) = 32),
    gas_used      bigint,
    effective_gas_price numeric(78, 0),
    confirmations integer NOT NULL DEFAULT 0,
    -- What the node last said of it, or why it failed.
    error_message text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    broadcast_at  timestamptz,
    last_sent_at  timestamptz,
    -- Chain height at which a nonce was noticed to be used, or left out, by somebody else. A foreign slot is filled with a no-op past a
    -- bound; an intent's slot is called foreign only when its receipt is still missing some blocks later.
    noticed_block bigint,
    PRIMARY KEY (chain_id, address, nonce),
    FOREIGN KEY (chain_id, address) REFERENCES lanes,
    CHECK (state NOT IN ('mined', 'final') OR outcome IS NOT NULL),
    CHECK (state <> 'mined' OR (mined_tx_hash IS NOT NULL AND block_number IS NOT NULL AND block_hash IS NOT NULL)),
    CHECK (state NOT IN ('signed', 'broadcast') OR outcome IS NULL),
    CHECK (intent_id IS NOT NULL OR state IN ('foreign', 'mined', 'final'))
);
-- What the tracker reads: nothing of the settled past.
CREATE INDEX slots_open ON slots (chain_id, address, nonce) WHERE state <> 'final';

-- The signed bytes. They are written in the transaction that takes the nonce, and only ever sent after it has committed.
CREATE TABLE attempts (
    id        uuid PRIMARY KEY,
    chain_id  bigint NOT NULL,
    address   bytea NOT NULL,
    nonce     bigint NOT NULL,
    kind      text NOT NULL CHECK (kind IN ('intent', 'noop')),
    tx_hash   bytea NOT NULL UNIQUE CHECK (octet_length(tx_hash) = 32),
    raw       bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (chain_id, address, nonce) REFERENCES slots
);
CREATE INDEX attempts_by_slot ON attempts (chain_id, address, nonce, created_at);
-- Two trackers that close a slot at once close it once.
CREATE UNIQUE INDEX attempts_one_noop ON attempts (chain_id, address, nonce) WHERE kind = 'noop';

-- The rolling 24 hours of an agent in one spend group. The sum is kept, so that a check costs the same whatever the history;
-- the row is locked FOR UPDATE first, and summed in a later statement (a single statement takes its snapshot before it waits).
CREATE TABLE spending_windows (
    agent_id      uuid NOT NULL REFERENCES agents,
    spend_group   text NOT NULL,
    value_sum_wei numeric(78, 0) NOT NULL DEFAULT 0 CHECK (value_sum_wei >= 0),
    fee_sum_wei   numeric(78, 0) NOT NULL DEFAULT 0 CHECK (fee_sum_wei >= 0),
    -- The window's own clock: it never runs backwards, whatever the server's does.
    last_stamp    timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (agent_id, spend_group)
);

-- One entry per signed intent. It leaves the sums exactly once: counted goes from true to false under the window's lock, when 24
-- hours have passed and the nonce is settled. When our own no-op took the nonce, the value is given back at once (value_wei becomes 0);
-- the fee is not, because the no-op was paid for.
CREATE TABLE spends (
    intent_id   uuid PRIMARY KEY REFERENCES intents,
    agent_id    uuid NOT NULL,
    spend_group text NOT NULL,
    value_wei   numeric(78, 0) NOT NULL CHECK (value_wei >= 0),
    fee_wei     numeric(78, 0) NOT NULL CHECK (fee_wei >= 0),
    signed_at   timestamptz NOT NULL,
    settled     boolean NOT NULL DEFAULT false,
    counted     boolean NOT NULL DEFAULT true,
    FOREIGN KEY (agent_id, spend_group) REFERENCES spending_windows
);
CREATE INDEX spends_ageing ON spends (agent_id, spend_group, signed_at) WHERE counted AND settled;

-- Idempotency keys, 24 hours. A claim is held under a token: the lease says who may take it over, the token who may commit.
CREATE TABLE idempotency (
    agent_id     uuid NOT NULL REFERENCES agents,
    key_hash     bytea NOT NULL CHECK (octet_length(key_hash) = 32),
    request_hash bytea NOT NULL CHECK (octet_length(request_hash) = 32),
    state        text NOT NULL CHECK (state IN ('in_flight', 'completed')),
    claim        uuid NOT NULL,
    lease_until  timestamptz NOT NULL,
    intent_id    uuid REFERENCES intents,
    expires_at   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agent_id, key_hash),
    CHECK ((state = 'completed') = (intent_id IS NOT NULL))
);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

-- Which daemon follows a chain just now. Only saves work: every step of the tracker is safe when two do it.
CREATE TABLE tracker_leases (
    chain_id bigint PRIMARY KEY,
    holder   uuid NOT NULL,
    until    timestamptz NOT NULL
);
