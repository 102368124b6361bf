-- Simulation: whom an organisation asks, what its contracts call things, and where a person looks at a result.

-- An organisation may be simulated by an account of its own. Where that is comes from the daemon's configuration alone: a URL here would
-- let whoever sets it reach into the daemon's network. The access key is a secret of one of the organisation's vaults, opened for each use.
CREATE TABLE simulation_settings (
    org_id      uuid PRIMARY KEY REFERENCES organisations,
    backend     text NOT NULL CHECK (backend IN ('rpc', 'tenderly')),
    account     text CHECK (char_length(account) BETWEEN 1 AND 64),
    project     text CHECK (char_length(project) BETWEEN 1 AND 64),
    vault_id    uuid REFERENCES vaults,
    secret_path text CHECK (char_length(secret_path) BETWEEN 1 AND 1024),
    -- Who named the secret, having been allowed to read it.
    set_by      uuid NOT NULL REFERENCES users,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CHECK ((backend = 'tenderly') = (account IS NOT NULL AND project IS NOT NULL AND vault_id IS NOT NULL AND secret_path IS NOT NULL))
);

-- Contract ABIs: they give functions and errors their names in reasons of reverts. Hints for people: nothing is decided by them.
CREATE TABLE contract_abis (
    id         uuid PRIMARY KEY,
    org_id     uuid NOT NULL REFERENCES organisations,
    name       text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255),
    -- The contract they belong to; NULL: any.
    address    bytea CHECK (octet_length(address) = 20),
    created_by uuid NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (org_id, name)
);

-- What is used of an ABI: one row per function and error. The JSON itself is not kept.
CREATE TABLE contract_abi_items (
    abi_id    uuid NOT NULL REFERENCES contract_abis ON DELETE CASCADE,
    org_id    uuid NOT NULL REFERENCES organisations,
    kind      text NOT NULL CHECK (kind IN ('function', 'error')),
    selector  bytea NOT NULL CHECK (octet_length(selector) = 4),
    signature text NOT NULL CHECK (char_length(signature) BETWEEN 1 AND 512),
    -- The arguments' names.
    names     text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (abi_id, kind, selector)
);
CREATE INDEX contract_abi_items_by_selector ON contract_abi_items (org_id, kind, selector);

-- Where a person looks at the simulation, if the simulator keeps it.
ALTER TABLE intents ADD COLUMN simulation_url text CHECK (char_length(simulation_url) <= 2048);
