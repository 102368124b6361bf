-- How agents prove who they are without a key, and what they are known by to each other.

-- What agents show to others: a raw Ed25519 key (RFC 8032) and an uncompressed P-256 point (SEC 1). The private halves are secrets in
-- the organisation's vault __agent-keys. NULL for agents from before: rotating gives them keys.
ALTER TABLE agents ADD COLUMN ssh_public_key bytea CHECK (octet_length(ssh_public_key) = 32);
ALTER TABLE agents ADD COLUMN ecdh_public_key bytea CHECK (octet_length(ecdh_public_key) = 65);

-- An agent that enrolled itself and whose key nobody has used yet. They are bounded for each human: anybody can enrol one.
ALTER TABLE agents ADD COLUMN unclaimed boolean NOT NULL DEFAULT false;
CREATE INDEX agents_unclaimed ON agents (created_by, created_at) WHERE unclaimed AND deleted_at IS NULL;

-- One spelling, so that equal certificates have equal texts. What was no SHA-256 matched no certificate, and is dropped.
UPDATE agents SET client_cert_fingerprint = lower(replace(client_cert_fingerprint, ':', '')) WHERE client_cert_fingerprint IS NOT NULL;
UPDATE agents SET client_cert_fingerprint = NULL WHERE client_cert_fingerprint !~ '^[0-9a-f]{64}$';
ALTER TABLE agents ADD CHECK (client_cert_fingerprint ~ '^[0-9a-f]{64}$');

-- The name of the vault for private identity keys is the daemon's from now on.
UPDATE vaults SET name = name || '-' || left(id::text, 8) WHERE name = '__agent-keys';

-- Assertions of identity providers that were exchanged for a token, until they would have ended: each is taken once, on whichever
-- daemon. The key is a SHA-256 over issuer and id.
CREATE TABLE used_assertions (
    key   bytea PRIMARY KEY CHECK (octet_length(key) = 32),
    until timestamptz NOT NULL
);
CREATE INDEX used_assertions_until ON used_assertions (until);
